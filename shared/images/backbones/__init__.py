"""Networks with weights learned on ImageNet, to build on."""
