"""All families of convolutional networks for images of 32 pixels, their variants by name."""

from shared.images.backbones.alexnet import ALEXNETS
from shared.images.backbones.convnext import CONVNEXTS
from shared.images.backbones.densenet import DENSENETS
from shared.images.backbones.efficientnet import EFFICIENTNETS
from shared.images.backbones.lenet import LENETS
from shared.images.backbones.mobilenet import MOBILENETS
from shared.images.backbones.resnet import RESNETS
from shared.images.backbones.shufflenet import SHUFFLENETS
from shared.images.backbones.vgg import VGGS

ARCHITECTURES = LENETS | ALEXNETS | VGGS | RESNETS | DENSENETS | MOBILENETS | SHUFFLENETS | EFFICIENTNETS | CONVNEXTS
