"""The command `recipes`."""

import importlib
import inspect
import json

import keras
import pytest
from conftest import PROJECT, processor_seconds

from shared.backends.choice import installed_backends
from shared.data.catalogue import DATA_SETS, find_data_set
from shared.data.places import file_hash
from shared.errors import UsageError
from shared.tools import doctor, records
from shared.tools.doctor import report_data
from shared.tools.pages import all_pages, docstring_parts, with_tables
from shared.tools.project import data_sets_of, field_of, recipe_paths
from shared.tools.records import headline_records, public_command, read_records, record_run, shown_number


def recipes(run_python, *arguments, **keywords):
    return run_python("-m", "shared.tools.cli", *arguments, **keywords)


@pytest.mark.once
def test_list_names_every_recipe(recipes_command):
    text = recipes_command("list", check=0).stdout
    for path in recipe_paths():
        assert f"{path.stem}\n  task        " in text
        for record in headline_records(path.stem)[:1]:
            assert f"  parameters  {record['parameters']:,}\n" in text


@pytest.mark.once
def test_doctor_tries_the_backends(recipes_command, monkeypatch):
    there = keras.config.backend()
    monkeypatch.setattr(doctor, "installed_backends", lambda: [there])  # each takes seconds
    text = recipes_command("doctor", "--backends", check=0).stdout
    (line,) = [line for line in text.splitlines() if f"Keras {keras.__version__}" in line]
    assert line.split()[0] == there
    assert "on cpu" in line or there in line
    assert text.count("not installed     fix: ") == 2
    assert "GB free" in text


@pytest.mark.once
def test_doctor_names_each_data_set_of_each_recipe_and_how_to_get_it(run_python, offline):
    start = processor_seconds()
    lines = recipes(run_python, "doctor", check=0).stdout.splitlines()
    assert processor_seconds() - start < 3
    for path in recipe_paths():
        for data_set in data_sets_of(path):
            (number,) = [number for number, line in enumerate(lines) if line.split()[:1] == [data_set.name]]
            assert path.stem in lines[number]
            assert ("bundled in " in lines[number]) == bool(data_set.packages)
            if not data_set.packages:
                assert "missing" in lines[number]
                assert lines[number + 1].strip().startswith("fix: ")
                assert " MB" in lines[number + 1]
    assert "fix: run a recipe with --data cifar10, which downloads 170.1 MB" in "\n".join(lines)


@pytest.mark.once
@pytest.mark.parametrize("path", recipe_paths(), ids=lambda path: path.stem)
def test_data_sets_of_a_recipe_are_known_without_keras(path):
    sets = {data_set.name: data_set for data_set in data_sets_of(path)}
    assert any(data_set.packages for data_set in sets.values()), "none is bundled"
    assert {record["data"] for record in read_records(path.stem)} <= set(sets)
    for preset in importlib.import_module(f"recipes.{path.stem}").Config.presets.values():
        assert preset.get("data", next(iter(sets))) in sets
    assert (PROJECT / "shared" / field_of(path)).is_dir()


@pytest.mark.once
def test_a_data_set_is_found_whole_in_part_or_not_at_all(tmp_path):
    sets = {data_set.name: data_set for data_set in DATA_SETS}
    raw = tmp_path / "raw/dailydialog"
    raw.mkdir(parents=True)
    (raw / "train.zip").write_bytes(bytes(2_000_000))
    partly = find_data_set(sets["dailydialog"], tmp_path)
    assert (partly.place, partly.remark) == (None, "incomplete: no validation.zip, test.zip")
    assert partly.fix.startswith("put validation.zip, test.zip (")
    for name in ("validation.zip", "test.zip"):
        (raw / name).write_bytes(bytes(500_000))
    assert find_data_set(sets["dailydialog"], tmp_path) == (raw, "3.0 MB", "")
    assert "tfds.builder(" in find_data_set(sets["bccd"], tmp_path).fix
    prepared = tmp_path / "tfds/bccd/1.0.0"
    prepared.mkdir(parents=True)
    (prepared / "dataset_info.json").write_bytes(bytes(200_000))
    assert find_data_set(sets["bccd"], tmp_path) == (tmp_path / "tfds/bccd", "0.2 MB", "")
    absent = sets["cldr"]._replace(packages=("no-such-package",))
    assert find_data_set(absent, tmp_path) == (None, "missing", "pip install no-such-package")


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
    place = real_data / "tfds" / "cifar10"
    assert f"{place}\n" in capsys.readouterr().out


@pytest.mark.once
@pytest.mark.parametrize(
    "arguments",
    [
        *([], ["nonsense"], ["record"], ["record", "nowhere"], ["list", "--loud"]),
        *(["predict"], ["predict", "nowhere"], ["predict", "--loud", "nowhere"]),
    ],
)
def test_wrong_use(recipes_command, arguments):
    process = recipes_command(*arguments)
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
def test_pages_are_those_of_the_records():
    for page, text in all_pages().items():
        assert page.read_text(encoding="utf-8") == text, f"{page}: run  recipes tables --write"
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    for path in recipe_paths():
        page = (PROJECT / "results" / path.stem / "README.md").read_text(encoding="utf-8")
        assert f"(results/{path.stem}/README.md)" in readme
        for record in read_records(path.stem):
            assert f"{record['metric']} {record['value']:.4f}" in page
            assert public_command(record["command"]) in page
        for figure in (PROJECT / "results" / path.stem).glob("*.png"):
            assert f"]({figure.name})" in page, f"{figure} is shown nowhere"


@pytest.mark.once
def test_a_docstring_becomes_prose_and_commands():
    docstring = """A task.

    What it does, after X (https://x.org/1), in
    two lines.

        python a.py --preset full    for a GPU
        python a.py

    Last. The recorded runs are under
    results/a."""
    assert docstring_parts(inspect.cleandoc(docstring)) == (
        ["What it does, after X (<https://x.org/1>), in\ntwo lines.", "Last."],
        "python a.py --preset full  # for a GPU\npython a.py",
    )


@pytest.mark.once
def test_small_numbers_are_not_shown_as_zero():
    numbers = (0.0, 1.9e-7, -4e-5, 5e-5, 0.89421, 12.0)
    assert [shown_number(each) for each in numbers] == ["0.0000", "1.9e-07", "-4.0e-05", "0.0001", "0.8942", "12.0000"]


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
def test_sweeps_are_tables_of_their_records(monkeypatch):
    row = {"value": "adam", "learning_rate": 0.001, "top1": 0.9, "deviation": 0.01, "val_top1": 0.8, "train_top1": 1.0,
           "epochs": 3, "diverged": 0, "at_edge": False}  # fmt: skip
    record = {"data": "some", "backend": "jax", "options": {"vary": "optimizer", "network": "cnn"}, "sweep": [row]}
    monkeypatch.setattr(records, "read_records", lambda recipe: [record | {"vary": "optimizer"}, {"no": "sweep"}])
    assert with_tables("<!-- sweeps some -->\n<!-- end -->").splitlines()[1:-1] == [
        "**Optimizer**: some, jax, network cnn", "",
        "| optimizer | learning rate | top-1, test | validation | training |", "|---|---|---|---|---|",
        "| adam | 0.001 | 0.9000 ± 0.0100 | 0.8000 | 1.0000 |",
    ]  # fmt: skip


@pytest.mark.once
def test_recipes_stand_side_by_side(monkeypatch):
    ours = {
        "preset": "small", "data": "some", "backend": "jax", "metric": "top1", "value": 0.5, "parameters": 1234,
        "epochs": 3, "train_seconds": 90,
    }  # fmt: skip
    found = {
        "a": [ours, ours | {"value": 0.6, "options": {"kind_of": "x"}}, ours | {"preset": "smoke", "value": 0.1}],
        "b": [ours | {"value": 0.55}, ours | {"data": "other"}, ours | {"backend": "torch"}, ours | {"metric": "loss"}],
    }
    monkeypatch.setattr(records, "read_records", found.get)
    assert with_tables("<!-- side_by_side a b -->\n<!-- end -->").splitlines()[3:-1] == [
        "| [a](../a/README.md) | `--kind-of x` | jax | 1,234 | 3 | 1.5 min | 0.6000 |",
        "| [b](../b/README.md) |  | jax | 1,234 | 3 | 1.5 min | 0.5500 |",
        "| [a](../a/README.md) |  | jax | 1,234 | 3 | 1.5 min | 0.5000 |",
    ]
    found["a"].clear()
    assert "Not yet measured." in with_tables("<!-- side_by_side a b -->\n<!-- end -->")


@pytest.mark.once
def test_records_are_of_committed_code_and_say_how_they_were_made():
    for path in recipe_paths():
        for record in read_records(path.stem):
            assert record["recipe"] == path.stem
            assert record["commit"]
            assert not record["commit"].endswith("-dirty")
            assert f"python recipes/{path.name}" in record["command"]
            assert record["value"] == record["metrics"][record["metric"]]
    for folder in ("custom_step", "architectures", "batching", "serving"):
        for path in (PROJECT / "results" / folder).glob("*.json"):
            assert not json.loads(path.read_text())["commit"].endswith("-dirty"), path


@pytest.mark.once
@pytest.mark.parametrize("recipe", ["gan_fashion", "diffusion"])
def test_recorded_images_are_judged_by_the_classifier_that_is_kept(recipe):
    page = (PROJECT / "results/gan_fashion/README.md").read_text(encoding="utf-8")
    for record in read_records(recipe):
        classifier = PROJECT / "results/judges" / f"{record['data']}.keras"
        assert record["judge_sha256"] == file_hash(classifier), "another classifier: records are not comparable"
        accuracy = json.loads(classifier.with_suffix(".json").read_text())["value"]
        assert f"top-1 accuracy of {accuracy:.4f}" in " ".join(page.split())
