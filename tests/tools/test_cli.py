"""The command `recipes`."""

import json

import keras
import pytest
from conftest import PROJECT

from shared.backends.choice import installed_backends
from shared.data.places import file_hash
from shared.errors import UsageError
from shared.tools import records
from shared.tools.doctor import report_data
from shared.tools.project import recipe_paths
from shared.tools.records import public_command, read_records, record_run, with_tables


def recipes(run_python, *arguments, **keywords):
    return run_python("-m", "shared.tools.cli", *arguments, **keywords)


@pytest.mark.once
def test_list_names_every_recipe(run_python):
    text = recipes(run_python, "list", check=0).stdout
    for path in recipe_paths():
        assert f"{path.stem}\n  task        " in text
        for record in [record for record in read_records(path.stem) if record["preset"] == "small"][:1]:
            assert f"{record['parameters']:,}" in text


@pytest.mark.once
def test_doctor_finds_the_backends(run_python, offline):
    text = recipes(run_python, "doctor", check=0).stdout
    found = {line.split()[0]: line for line in text.splitlines() if f"Keras {keras.__version__}" in line}
    assert set(found) == set(installed_backends())
    for name, line in found.items():
        assert "on cpu" in line or name in line
    assert "cifar10          missing     fix: run a recipe with --data cifar10, which downloads 170 MB" in text
    assert "GB free" in text


@pytest.mark.once
def test_the_command_needs_no_particular_backend(run_python, hiding, tmp_path):
    environment = {"KERAS_BACKEND": "", "KERAS_HOME": str(tmp_path), **hiding("tensorflow")}
    processes = {command: recipes(run_python, command, **environment) for command in ("list", "doctor", "tables")}
    for command, process in processes.items():
        works = command != "doctor" or installed_backends() != ["tensorflow"]
        assert process.returncode == (0 if works else 1), process.stderr
        assert "Traceback" not in process.stderr
    assert "tensorflow  not installed     fix: pip install" in processes["doctor"].stdout


@pytest.mark.once
def test_doctor_finds_prepared_data(capsys, real_data):
    report_data(None)
    assert f"cifar10          {real_data / 'tfds' / 'cifar10'}" in capsys.readouterr().out


@pytest.mark.once
@pytest.mark.parametrize(
    "arguments",
    [
        *([], ["nonsense"], ["record"], ["record", "nowhere"], ["list", "--loud"]),
        *(["predict"], ["predict", "nowhere"], ["predict", "--loud", "nowhere"]),
    ],
)
def test_wrong_use(run_python, arguments):
    process = recipes(run_python, *arguments)
    assert process.returncode == 2
    assert process.stderr.startswith("error: ")
    assert process.stderr.count("\n") == 1


def finished_run(directory, commit):
    directory.mkdir()
    result = {"recipe": "some", "backend": "jax", "preset": "small", "data": "mnist5k", "seed": 0, "value": 0.5}
    config = {"command": "python some.py --out /tmp/x", "commit": commit, "machine": "a box", "options": {}}
    (directory / "result.json").write_text(json.dumps(result))
    (directory / "config.json").write_text(json.dumps(config))
    return directory


@pytest.mark.once
def test_record(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "PROJECT", tmp_path)
    path = record_run(finished_run(tmp_path / "run", "0123456789ab"))
    assert path == tmp_path / "results/some/small-mnist5k-jax-0.json"
    record = json.loads(path.read_text())
    assert (record["value"], record["commit"], record["machine"]) == (0.5, "0123456789ab", "a box")
    for commit in ("0123456789ab-dirty", None):
        with pytest.raises(UsageError, match="not committed"):
            record_run(finished_run(tmp_path / f"run {commit}", commit))
    changed = finished_run(tmp_path / "changed", "0123456789ab")
    result = json.loads((changed / "result.json").read_text())
    (changed / "result.json").write_text(json.dumps(result | {"changed_on_resume": {"chain_samples": "20"}}))
    with pytest.raises(UsageError, match="--chain-samples 20, which its command does not say"):
        record_run(changed)


@pytest.mark.once
def test_records_of_other_experiments_stand_beside_the_presets(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "PROJECT", tmp_path)
    run = finished_run(tmp_path / "run", "0123456789ab")
    result = json.loads((run / "result.json").read_text()) | {"train_seconds": 60.0, "metric": "score", "parameters": 3}
    for options in ({}, {"cell": "gru"}, {"epochs": "1", "widths": "(8, 16)"}, {f"o{i}": "x" * 9 for i in range(40)}):
        (run / "result.json").write_text(json.dumps(result | {"options": options}))
        record_run(run)
    names = {path.name for path in (tmp_path / "results/some").iterdir()}
    assert len(names) == 4
    assert names >= {
        "small-mnist5k-jax-0.json", "small-mnist5k-jax-0-cell-gru.json", "small-mnist5k-jax-0-epochs-1-widths-8-16.json"
    }  # fmt: skip
    assert max(map(len, names)) < 130
    assert [record["options"] for record in records.headline_records("some")] == [{}]
    (run / "result.json").write_text(json.dumps(result | {"options": {}, "data": "../../etc/own pictures"}))
    assert record_run(run).parent == tmp_path / "results/some"


@pytest.mark.once
@pytest.mark.parametrize(
    ("command", "public"),
    [
        ("python recipes/a.py --out runs/x --seed 1", "python recipes/a.py --seed 1"),
        ("python recipes/a.py --out 'my dir' --seed 1", "python recipes/a.py --seed 1"),
        ("python recipes/a.py --out=/home/x --seed=1", "python recipes/a.py --seed 1"),
        ("python recipes/a.py --data-dir /home/me --data_dir='~/a b'", "python recipes/a.py"),
        ("python recipes/a.py --judge /home/me/model.keras", "python recipes/a.py --judge model.keras"),
        (f"python {PROJECT}/recipes/a.py --judge={PROJECT}/b.keras", "python recipes/a.py --judge b.keras"),
        ("KERAS_BACKEND=jax python recipes/a.py --widths 8 16", "KERAS_BACKEND=jax python recipes/a.py --widths 8 16"),
        ("python a.py --prompt 'two words'", "python a.py --prompt 'two words'"),
    ],
)
def test_published_commands_tell_no_paths_of_whoever_ran_them(command, public):
    assert public_command(command) == public


@pytest.mark.once
def test_data_and_the_data_directory_are_distinguished():
    assert records.on_own_data({"command": "python recipes/a.py --data-dir /tmp/--data"})
    assert not records.on_own_data({"command": "python recipes/a.py --data=mnist5k"})


@pytest.mark.once
def test_the_tables_of_the_readme_are_those_of_the_records():
    readme = (PROJECT / "README.md").read_text()
    assert with_tables(readme) == readme, "run  recipes tables --write"
    for path in recipe_paths():
        assert f"<!-- table {path.stem} -->" in readme
        for record in read_records(path.stem):
            assert f"{record['metric']} {record['value']:.4f}" in readme
            assert public_command(record["command"]) in readme


@pytest.mark.once
def test_ranges_go_from_the_lowest_number_to_the_highest():
    found = [
        {"metric": "frechet", "value": value, "train_seconds": seconds, "backend": backend}
        for value, seconds, backend in ((10.9, 600, "torch"), (9.3, 1200, "jax"), (11.4, 500, "torch"))
    ]
    assert records.result_and_time(found) == ("frechet 9.3000–11.4000", "8–10 min torch, 20 min jax")
    assert records.result_and_time(found[:1]) == ("frechet 10.9000", "10 min torch")


@pytest.mark.once
def test_what_is_measured_beside_stands_between_its_bounds(monkeypatch):
    measured = {"frechet": 2.0, "frechet_real": 0.5, "frechet_untrained": 90.0, "kid": 0.25, "kid_real": 0.0}
    record = {"preset": "small", "data": "some", "backend": "jax", "seed": 0, "metric": "frechet", "metrics": measured}
    found = [record, record | {"preset": "smoke"}]
    monkeypatch.setattr(records, "read_records", lambda recipe: found)
    assert records.by_headline(record) == ["frechet", "kid"]
    assert with_tables("<!-- bounds gan -->\n<!-- end -->").splitlines()[1:-1] == [
        "| | frechet |", "|---|---|", "| training images | 0.5000 |", "| some, jax, seed 0 | 2.0000 |",
        "| untrained, jax | 90.0000 |",
    ]  # fmt: skip
    found += [record | {"seed": 1, "metrics": measured | {"frechet": 4.0}}]
    assert with_tables("<!-- bounds gan -->\n<!-- end -->").splitlines()[4:-2] == [
        "| some, jax, seed 0 | 2.0000 |", "| some, jax, seed 1 | 4.0000 |",
        "| mean of these 2 runs | 3.0000 |", "| their standard deviation | 1.4142 |",
    ]  # fmt: skip
    found += [record | {"data": "other"}]
    assert "mean" not in with_tables("<!-- bounds gan -->\n<!-- end -->")
    monkeypatch.setattr(records, "read_records", lambda recipe: [])
    assert "Not yet measured." in with_tables("<!-- bounds gan -->\n<!-- end -->")


@pytest.mark.once
def test_records_are_of_committed_code_and_say_how_they_were_made():
    for path in recipe_paths():
        for record in read_records(path.stem):
            assert record["recipe"] == path.stem
            assert record["commit"]
            assert not record["commit"].endswith("-dirty")
            assert f"python recipes/{path.name}" in record["command"]
            assert record["value"] == record["metrics"][record["metric"]]
    for path in (PROJECT / "results/custom_step").glob("*.json"):
        assert not json.loads(path.read_text())["commit"].endswith("-dirty")


@pytest.mark.once
@pytest.mark.parametrize("recipe", ["gan_fashion", "diffusion"])
def test_recorded_images_are_judged_by_the_classifier_that_is_kept(recipe):
    for record in read_records(recipe):
        classifier = PROJECT / "results/judges" / f"{record['data']}.keras"
        assert record["judge_sha256"] == file_hash(classifier), (
            "another evaluation classifier: records are not comparable"
        )
        accuracy = json.loads(classifier.with_suffix(".json").read_text())["value"]
        assert f"top-1 accuracy of {accuracy:.4f}" in " ".join((PROJECT / "README.md").read_text().split())
