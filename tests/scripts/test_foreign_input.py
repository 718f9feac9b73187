"""What strangers' files can do: be read, or be refused in one line. Nothing runs, nothing is made, nothing hangs.

The files are made by `hostile.py`. Most go through a script's `main` in this process; what is about processes gets its own.
"""

import ast
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import assemble
import hostile
import pytest
import torch
import verify
from hubtools.assembly.build import build_folder
from hubtools.assembly.checkpoint import open_checkpoint
from hubtools.assembly.recipes import load_recipe, recipe_from
from hubtools.errors import UserError, plain
from hubtools.foreign import tensors
from hubtools.packages import PACKAGES, ROOT
from safetensors.torch import save_file
from small import BYTEFORMER_TOML, LLAVA_VIT_TOML, Result, call, random_state, save_checkpoint, write_recipe

SCRIPTS = ROOT / "scripts"
MEMORY = 1500 * 10**6
CLASSIFIER = LLAVA_VIT_TOML.replace("LlavaViTModel", "LlavaViTForImageClassification")


def assert_refused(result: Result, *names: str) -> None:
    """Exit code 2, and one short line of printable characters that names one of `names`."""
    text = result.err.rstrip("\n")
    assert result.code == 2, (result.code, result.out[-500:], text[-2000:])
    assert text.startswith("error: ") and "\n" not in text and text.isprintable() and len(text) <= 500, text
    assert any(name in text for name in names), (names, text)


def tree(folder: Path) -> set:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


class Refusals:
    """Counts inputs, and checks of each that it was refused and left nothing."""

    def __init__(self, folder: Path):
        self.folder, self.count = folder, 0

    def assemble(self, *arguments: object, names) -> None:
        before = tree(self.folder)
        assert_refused(call(assemble.main, *arguments, "--output", self.folder / "made"), *names)
        assert tree(self.folder) == before
        self.count += 1


@pytest.fixture
def refusals(tmp_path):
    made = Refusals(tmp_path)
    yield made
    used = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    assert used * 1024 < MEMORY


@pytest.fixture(scope="module", params=["llavavit", "byteformer"])
def built(request, tmp_path_factory):
    """A Hub folder of each package, with a classifier, and its package."""
    base = tmp_path_factory.mktemp(request.param)
    toml = CLASSIFIER if request.param == "llavavit" else BYTEFORMER_TOML
    build_folder(base / "folder", load_recipe(str(write_recipe(base, toml))), None)
    return base / "folder", PACKAGES[request.param]


# ---------------------------------------------------------------------------------------------------------------------
# Configurations
# ---------------------------------------------------------------------------------------------------------------------


def test_every_field_of_a_configuration_with_values_of_every_wrong_type(built, refusals):
    source, package = built
    config = json.loads((source / "config.json").read_text())
    config_class = getattr(package.load(), package.config_class)
    folder = refusals.folder / "foreign"
    shutil.copytree(source, folder)
    cases = list(hostile.wrong_values(config_class)) + [
        (name, value) for name, values in hostile.WRONG_GENERIC.items() for value in values
    ]
    for name, value in cases:
        content = hostile.with_value(config, name, value)
        (folder / "config.json").write_bytes(content)
        refusals.assemble("--checkpoint", folder, names=["config.json"])
        result = call(verify.main, folder)
        row = result.out.split("\n", 1)[0]
        assert (
            result.code == 1
            and row.startswith("FAIL  files: configuration")
            and name.split("_")[0] in row
            and len(row) < 600
        ), (name, value, row)
    assert refusals.count > 150


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json"])
def test_malformed_json(built, refusals, file):
    source, package = built
    folder = refusals.folder / "foreign"
    shutil.copytree(source, folder)
    if file == "preprocessor_config.json" and package.name == "llavavit":
        pytest.skip("LLaVA-ViT's processor follows from the configuration")
    for content in hostile.MALFORMED_JSON.values():
        (folder / file).write_bytes(content)
        refusals.assemble("--checkpoint", folder, names=[file])
        result = call(verify.main, folder)
        assert result.code == 1 and "FAIL  files: configuration" in result.out and "Traceback" not in result.out
    assert refusals.count == len(hostile.MALFORMED_JSON)


def test_a_model_of_more_than_100_billion_parameters_needs_a_word(refusals):
    recipe = write_recipe(
        refusals.folder,
        LLAVA_VIT_TOML.replace("hidden_size = 64", "hidden_size = 32768")
        .replace("_layers = 2", "_layers = 100")
        .replace("heads = 2", "heads = 256"),
    )
    (refusals.folder / "empty.pth").touch()
    for arguments in (["--random-init"], ["--checkpoint", refusals.folder / "empty.pth"]):
        refusals.assemble(recipe, *arguments, names=["billion parameters"])
    result = call(
        assemble.main,
        recipe,
        "--checkpoint",
        refusals.folder / "empty.pth",
        "--allow-large",
        "--output",
        refusals.folder / "made",
    )
    assert "empty.pth is empty" in result.err


def test_weights_too_few_for_the_configuration_are_told_before_loading(built, tmp_path):
    source, package = built
    folder = shutil.copytree(source, tmp_path / "folder")
    config = json.loads((folder / "config.json").read_text())
    config["intermediate_size"] = 200_000
    (folder / "config.json").write_text(json.dumps(config))
    result = call(verify.main, folder)
    assert (
        result.code == 1
        and "the weights hold" in result.out
        and "load: model" in result.out
        and "FAIL  load" not in result.out
    )


# ---------------------------------------------------------------------------------------------------------------------
# Recipes, cards, experiment files
# ---------------------------------------------------------------------------------------------------------------------

CARD_VALUES = {
    "license": (5, True, ["mit"], {}, "mit\nx: y", 'mit"', "MIT License", "x" * 100, "", hostile.ESCAPE, hostile.BIDI, "mit```"),
    "license_name": (5, ["x"], {}, "a\nb", "", hostile.ESCAPE, hostile.BIDI, "x" * 1000),
    "license_link": (5, ["x"], "a b", "http://x/)[y](z", "x\ny", "<script>", '"', "x" * 1000),
    "summary": (5, ["x"], {}, "a\nb", "a\n---\nb", hostile.ESCAPE, hostile.BIDI, "x" * 5000, ""),
    "datasets": ("x", 5, [5], [["x"]], ["a b"], ["a\nb"], ["../../x"], ['"']),
    "tags": ("x", 5, [5], ["a\nb"], ["<b>"], ["`x`"], ["x" * 500], ["- a"] * 200, ["x"] * 200),
    "pipeline_tag": (5, [], "Image Classification", "a\nb", hostile.ESCAPE),
    "paper": (5, 2306.00238, "x", "2306.00238\n", "[x](y)"),
    "base_model": (5, {}, "a b", "a/b/c/d e", ['"'], "x\ny", [5]),
    "language": (5, True, {}, "english language", "en\n", [True]),
    "metrics": (5, "x", [5], [{}], [{"name": "x"}], [{"name": "x", "value": "high", "dataset": "d", "task": "t"}], [{"name": 5, "value": 1, "dataset": "d", "task": "t"}],
                [{"name": "x", "value": float("nan"), "dataset": "d", "task": "t"}], [{"name": "a\nb", "value": 1, "dataset": "d", "task": "t"}]),
}  # fmt: skip


def test_every_field_of_a_card(refusals):
    count = 0
    for name, values in CARD_VALUES.items():
        for value in values:
            content = {"package": "llavavit", "architecture": "LlavaViTModel", "card": {name: value}}
            assert_refused(call(lambda argv: recipe_from("mine", content)), f"{name}")  # noqa: B023
            count += 1
    assert count > 80


RECIPES = {
    "empty": "", "not TOML": "package = ", "a table twice": "[config]\n[config]\n", "no mapping": "config = 5", "not UTF-8": b"package = '\xff'", "zeros": bytes(100),
    "deep": "a = " + "[" * hostile.DEEP + "]" * hostile.DEEP, "dotted": ".".join("a" * 10_000) + " = 1", "megabytes": "a = '" + "x" * 3_000_000 + "'",
    "package of a number": "package = 5\narchitecture = 'x'", "another package": "package = 'os'\narchitecture = 'system'", "another class": "package = 'llavavit'\narchitecture = '__class__'",
    "an unknown key": LLAVA_VIT_TOML + "\n[hooks]\nx = 1\n", "a huge integer": LLAVA_VIT_TOML.replace("= 64", "= " + "9" * 5000), "infinity": LLAVA_VIT_TOML.replace("= 64", "= inf"),
    "a date": LLAVA_VIT_TOML.replace("= 64", "= 2024-01-01"), "layers without end": LLAVA_VIT_TOML.replace("_layers = 2", "_layers = 1000000000"),
    "a table for a number": LLAVA_VIT_TOML.replace("hidden_size = 64", "hidden_size = {a = 1}"), "a checkpoint of a number": LLAVA_VIT_TOML.replace('"small.pth"', "5"),
    "an activation of no name": LLAVA_VIT_TOML.replace("patch_size = 8", 'patch_size = 8\nhidden_act = "system"'), "labels with a gap": CLASSIFIER.replace("patch_size = 8", 'patch_size = 8\nid2label = {0 = "a", 2 = "b"}'),
    "pictures without end": LLAVA_VIT_TOML + "[processor]\nsize = 10000000\n", "a processor's table": LLAVA_VIT_TOML + "[processor]\nimage_mean = {a = 1}\n",
    "a byte window without end": BYTEFORMER_TOML.replace("window_sizes = [16]", "window_sizes = [500000000]"), "a stride of text": BYTEFORMER_TOML.replace("quality = 60", 'byte_order_stride = "x"'),
    "a quality of a list": BYTEFORMER_TOML.replace("quality = 60", "quality = [60]"), "labels of a billion": BYTEFORMER_TOML.replace("num_labels = 10", "num_labels = 1000000000"),
}  # fmt: skip


def test_recipes(refusals):
    for content in RECIPES.values():
        path = refusals.folder / "mine.toml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        refusals.assemble(path, "--random-init", names=["mine"])
    assert refusals.count == len(RECIPES)


CORENET = "model:\n  classification:\n    name: byteformer\n    byteformer:\n      mode: tiny\n"
LAUGHS = "a0: &a0 [x, x]\n" + "".join(
    f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}, *a{i - 1}, *a{i - 1}]\n" for i in range(1, 30)
)
MERGES = "a0: &a0 {k0: 1, j0: 2}\n" + "".join(
    f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}, *a{i - 1}], k{i}: 1}}\n" for i in range(1, 30)
)
EXPERIMENTS = {
    "empty": "", "a list": "- a\n", "text": "hello", "not YAML": "a: [", "not UTF-8": b"a: \xff", "code": CORENET + "x: !!python/object/apply:os.system ['touch ran']\n", "a tag": "a: !mine 5",
    "anchors that multiply": LAUGHS, "merges that multiply": MERGES, "an anchor in itself": "a: &a [*a]\n", "deep": "a: " + "[" * hostile.DEEP, "deep mappings": "{a: " * 5000, "a set": "a: !!set {b}\n",
    "a list as key": "? [a, b]\n: c\n", "a date of no day": "a: 2020-99-99\n", "megabytes": "a: " + "x" * 3_000_000, "mode as list": CORENET.replace("tiny", "[tiny]"), "mode as number": CORENET.replace("tiny", "5"),
    "name as list": CORENET.replace("name: byteformer", "name: [byteformer]"), "classes as text": CORENET.replace("    name: byteformer", "    n_classes: many\n    name: byteformer"),
    "classes without end": CORENET.replace("    name: byteformer", "    n_classes: 1000000000000\n    name: byteformer"), "windows of text": CORENET + "      window_sizes: wide\n",
    "windows without end": CORENET + "      window_sizes: [500000000]\n", "positions without end": CORENET + "      max_num_tokens: 1.0e+30\n", "dropout of text": CORENET + "      dropout: x\n",
    "activation as mapping": CORENET + "  activation: {name: {a: b}}\n", "enable as text": CORENET + "image_augmentation: {resize: {enable: often}}\n", "size as text": CORENET + "image_augmentation: {resize: {enable: true, size: big}}\n",
    "noise as text": CORENET + "image_augmentation: {random_uniform: {enable: true, width_range: x}}\n", "control characters": "a: \x1b[2J\n",
}  # fmt: skip


def test_experiment_files(refusals, monkeypatch):
    monkeypatch.chdir(refusals.folder)
    monkeypatch.setattr("hubtools.foreign.child.BASE_SECONDS", 2.0)  # merges that multiply take all they are given
    for content in EXPERIMENTS.values():
        Path("mine.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
        refusals.assemble("--corenet-config", "mine.yaml", "--random-init", names=["mine"])
    assert refusals.count == len(EXPERIMENTS)


FRONT_MATTERS = {
    "no end": "---\nlicense: mit\n", "a list": "---\n- a\n---\n", "not YAML": "---\na: [\n---\n", "a number": "---\nlicense: 5\n---\n", "quotes": '---\nlicense: "mit\\"\\nprint(1)"\n---\n',
    "a fence": "---\nlicense_name: \"a\\n```\\n```python\\nimport os\"\n---\n", "no": "---\nlicense: no\n---\n", "a mapping": "---\nlicense: {a: b}\n---\n", "not UTF-8": b"---\nlicense: \xff\n---\n",
    "anchors": f"---\n{LAUGHS}---\n", "deep": "---\na: " + "[" * hostile.DEEP + "\n---\n", "language as flag": "---\nlanguage: no\n---\n", "escapes": '---\nlicense_name: "\\e[2J"\n---\n',
    "megabytes": "---\nlicense: mit\n---\n" + "x" * 3_000_000, "code": "---\nlicense: !!python/name:os.system\n---\n",
}  # fmt: skip


def test_the_card_of_a_copied_folder(built, refusals):
    folder = shutil.copytree(built[0], refusals.folder / "foreign")
    for content in FRONT_MATTERS.values():
        (folder / "README.md").write_bytes(content if isinstance(content, bytes) else content.encode())
        refusals.assemble("--checkpoint", folder, names=["README.md"])
    assert refusals.count == len(FRONT_MATTERS)


NASTY = [
    "# a heading",
    "```python",
    "a ``` b",
    "[x](http://y)",
    "<script>",
    "| a | b |",
    "$name",
    "${name}",
    '")\nimport os',
    "1. one",
    "---",
    "\\",
    "*a* _b_",
    "a" * 300,
]


def test_text_of_a_recipe_stays_text_in_the_card(tmp_path):
    state = write_recipe(tmp_path)
    plain_card = None
    for text in ["plain", *NASTY]:
        recipe = load_recipe(str(state))
        card = {"license": "other", "license_name": text.replace("\n", " ")[:200], "summary": text.replace("\n", " ")}
        named = recipe_from(
            text[:60],
            {
                "package": recipe.package.name,
                "architecture": recipe.architecture,
                "config": recipe.config,
                "card": card,
            },
        )
        build_folder(tmp_path / "folder", named, None)
        content = (tmp_path / "folder" / "README.md").read_text()
        shutil.rmtree(tmp_path / "folder")
        lines = content.splitlines()
        shape = [
            line
            for line in lines[lines.index("---", 1) :]
            if line.startswith(("#", "```", "|", "import", "from", "print"))
        ]
        shape = [line for line in shape if line != lines[lines.index("---", 1) + 2]]  # the heading is the name's
        plain_card = plain_card or shape
        assert shape == plain_card, text
        for code in content.split("```python\n")[1:]:
            ast.parse(code.split("```")[0])


# ---------------------------------------------------------------------------------------------------------------------
# Weights
# ---------------------------------------------------------------------------------------------------------------------


def test_safetensors(refusals):
    path = refusals.folder / "foreign.safetensors"
    for content in hostile.safetensors_files().values():
        path.write_bytes(content)
        refusals.assemble("llava-vit-small", "--checkpoint", path, names=["foreign.safetensors", "checkpoint"])
    assert refusals.count >= 70


def test_a_whole_safetensors_file_cut_at_every_place_of_its_header(refusals):
    save_file({"a.weight": torch.zeros(3, 2), "b": torch.ones(4).bfloat16()}, refusals.folder / "whole.safetensors")
    whole = (refusals.folder / "whole.safetensors").read_bytes()
    for length in range(len(whole)):
        (refusals.folder / "cut.safetensors").write_bytes(whole[:length])
        with pytest.raises(UserError, match="cut.safetensors"):
            open_checkpoint(refusals.folder / "cut.safetensors")


def test_pickles(refusals, monkeypatch):
    monkeypatch.chdir(refusals.folder)  # where a payload's `touch ran` would leave its trace
    for content in hostile.pickles().values():
        Path("foreign.pth").write_bytes(content)
        refusals.assemble(
            "llava-vit-small", "--checkpoint", "foreign.pth", names=["foreign.pth", "checkpoint", "keys such as"]
        )
    assert refusals.count >= 75 and sorted(os.listdir()) == ["foreign.pth"]


def kinds_of(contents, folder: Path) -> list:
    """What a child would make of each checkpoint: "m", "t" or "o", or the name of the exception that it would die of."""
    (folder / "contents.json").write_text(json.dumps([content.hex() for content in contents]))
    command = [sys.executable, "-I", Path(__file__).with_name("read_many.py"), SCRIPTS, folder / "contents.json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    (folder / "contents.json").unlink()
    return json.loads(done.stdout)


def test_pickles_cut_at_every_place_and_opcode(tmp_path):
    state = {"model": {"a.weight": torch.zeros(3, 2), "b": torch.ones(4)}}
    for legacy in (False, True):
        whole = hostile.pickled(state, legacy)
        kinds = kinds_of([whole[:length] for length in range(len(whole) + 1)], tmp_path)
        assert kinds[-1] == "m" and not {"m", "t", "o"} & set(kinds[:-1])
    tried = hostile.cut_at_every_opcode(hostile.pickled(state)) + [
        hostile.archive(data) for data in hostile.every_opcode_alone()
    ]
    kinds = kinds_of(tried, tmp_path)
    assert len(kinds) == len(tried) > 2000 and not os.listdir(tmp_path), "something was left behind"


def test_some_of_those_through_a_child(refusals):
    cut = hostile.cut_at_every_opcode(hostile.pickled({"a": torch.zeros(2)}))
    for content in cut[::7]:
        (refusals.folder / "foreign.pth").write_bytes(content)
        refusals.assemble(
            "llava-vit-small",
            "--checkpoint",
            refusals.folder / "foreign.pth",
            names=["foreign.pth", "checkpoint", "keys such as"],
        )
    assert refusals.count >= 10


def test_what_torch_reads_is_read_alike(tmp_path):
    """Views, parameters, shared numbers, old formats: the reader gives what torch.load gives."""
    torch.manual_seed(0)
    base = torch.randn(6, 4)
    state = {
        "whole": base, "view": base[1:3], "turned": base.t(), "step": base[::2, ::3], "same": base, "scalar": torch.tensor(3.5), "none": torch.zeros(0, 5),
        "parameter": torch.nn.Parameter(torch.randn(3)), "half": torch.randn(5).half(), "bfloat16": torch.randn(2, 2).bfloat16(), "long": torch.arange(5), "flag": torch.tensor([True, False]),
        "wide": torch.randn(2, 3).to(memory_format=torch.contiguous_format).unsqueeze(0).expand(1, 2, 3), "channels last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    }  # fmt: skip
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    for legacy in (False, True):
        for content in (state, module.state_dict()):
            torch.save(content, tmp_path / "whole.pth", _use_new_zipfile_serialization=not legacy)
            expected = torch.load(tmp_path / "whole.pth", weights_only=True)
            with open_checkpoint(tmp_path / "whole.pth") as checkpoint:
                assert checkpoint.names() == list(expected)
                for name, tensor in expected.items():
                    assert checkpoint.dtype(name) == tensor.dtype and checkpoint.shape(name) == tuple(tensor.shape)
                    assert torch.equal(checkpoint.tensor(name), tensor), name


INDEXES = {
    "no map": {}, "a list": [], "a map of no kind": {"weight_map": []}, "a number": {"weight_map": {"a": 5}}, "null": {"weight_map": {"a": None}}, "above": {"weight_map": {"a": "../x.safetensors"}},
    "absolute": {"weight_map": {"a": "/etc/passwd"}}, "itself": {"weight_map": {"a": "."}}, "nothing": {"weight_map": {"a": ""}}, "zero": {"weight_map": {"a": "x\0y.safetensors"}}, "escapes": {"weight_map": {"a": hostile.ESCAPE}},
    "missing": {"weight_map": {"a": "gone.safetensors"}}, "long": {"weight_map": {"a": "x" * 5000}}, "the index": {"weight_map": {"a": "model.safetensors.index.json"}}, "empty": {"weight_map": {}},
    "backwards": {"weight_map": {"a": "..\\x.safetensors"}}, "other endings": {"weight_map": {"a": "config.json"}}, "a table": {"weight_map": {"a": {"b": "c"}}},
}  # fmt: skip


def test_indexes(refusals):
    index = refusals.folder / "model.safetensors.index.json"
    (refusals.folder / "config.json").write_text("{}")
    contents = [json.dumps(content).encode() for content in INDEXES.values()] + list(hostile.MALFORMED_JSON.values())[
        :-1
    ]
    for content in contents:
        index.write_bytes(content)
        refusals.assemble(
            "llava-vit-small",
            "--checkpoint",
            index,
            names=["index.json", "gone.safetensors", "config.json", "checkpoint"],
        )
    assert refusals.count == len(contents)


def test_what_is_no_regular_file(refusals):
    """Pipes, devices, folders, sockets and links to them, wherever a file is read; none is waited for."""
    folder = refusals.folder
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    (folder / "loop").symlink_to("loop")
    targets = {
        "pipe": folder / "pipe",
        "null": Path("/dev/null"),
        "zero": Path("/dev/zero"),
        "folder": folder / "folder",
        "loop": folder / "loop",
        "nothing": folder / "nothing",
        "tty": Path("/dev/tty"),
    }
    for target in targets.values():
        for name in ("x.safetensors", "x.pth", "x.safetensors.index.json"):
            (folder / name).symlink_to(target)
            refusals.assemble("llava-vit-small", "--checkpoint", folder / name, names=["x.", "Symlink loop"])
            (folder / name).unlink()
        (folder / "x.toml").symlink_to(target)
        refusals.assemble(folder / "x.toml", "--random-init", names=["x.toml"])
        refusals.assemble("--corenet-config", folder / "x.toml", "--random-init", names=["x.toml"])
        (folder / "x.toml").unlink()
        (folder / "folder" / "config.json").symlink_to(target)
        refusals.assemble("--checkpoint", folder / "folder", names=["config.json"])
        (folder / "folder" / "config.json").unlink()
    assert refusals.count == 6 * len(targets)


def test_a_checkpoint_that_is_cut_while_it_is_read(tmp_path):
    save_file({"a": torch.randn(1000), "b": torch.randn(1000)}, tmp_path / "w.safetensors")
    torch.save({"a": torch.randn(1000), "b": torch.randn(1000)}, tmp_path / "w.pth")
    for name in ("w.safetensors", "w.pth"):
        with open_checkpoint(tmp_path / name) as checkpoint:
            os.truncate(tmp_path / name, 3000)
            with pytest.raises(UserError, match=f"{name} was cut while it was read"):
                [checkpoint.tensor(one) for one in checkpoint.names()]


@pytest.mark.parametrize(
    "release, flaw", [("2.4.1", "CVE-2025-32434"), ("2.5.0+cu121", "CVE-2025-32434"), ("2.9.1", "CVE-2026-24747")]
)
def test_below_the_safe_torch_release_pickles_are_refused_and_safetensors_are_not(tmp_path, monkeypatch, release, flaw):
    monkeypatch.setattr(torch, "__version__", release)
    save_file({"a": torch.zeros(2)}, tmp_path / "w.safetensors")
    for suffix in (".pth", ".pt", ".bin"):
        torch.save({"a": torch.zeros(2)}, tmp_path / f"w{suffix}")
        with pytest.raises(UserError, match=f"torch {release.split('+')[0]}.*{flaw}.*2.10.*safetensors"):
            open_checkpoint(tmp_path / f"w{suffix}")
    with open_checkpoint(tmp_path / "w.safetensors") as checkpoint:
        assert checkpoint.names() == ["a"]
    monkeypatch.setattr(torch, "__version__", "2.10.0")
    tensors.check_release(tmp_path / "w.pth")


# ---------------------------------------------------------------------------------------------------------------------
# Code
# ---------------------------------------------------------------------------------------------------------------------


def imported_names() -> set:
    """Every top-level module that the scripts, the packages or their libraries might import."""
    files = [*SCRIPTS.rglob("*.py"), *(ROOT / "llavavit").glob("*.py"), *(ROOT / "byteformer").glob("*.py")]
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
    names = {alias.name.split(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {
        node.module.split(".")[0]
        for node in nodes
        if isinstance(node, ast.ImportFrom) and node.module and not node.level
    }
    libraries = {
        "flash_attn",
        "torchvision",
        "accelerate",
        "peft",
        "filelock",
        "requests",
        "httpx",
        "tqdm",
        "packaging",
        "regex",
        "sympy",
        "tokenizers",
        "attr",
        "tomli",
        "typing_extensions",
    }
    return names | libraries | set(PACKAGES) | set(sys.stdlib_module_names)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A good folder, downloaded from a stranger, in which a module of every such name lies; and a checkpoint with its recipe."""
    base = tmp_path_factory.mktemp("planted")
    save_checkpoint(base / "small.pth")
    folder = base / "folder"
    build_folder(folder, load_recipe(str(write_recipe(base))), None)
    shutil.copy(base / "small.pth", folder / "weights.pth")
    shutil.copy(base / "small-model.toml", folder / "mine.toml")
    # What the interpreter itself imports before any script begins cannot be kept from a PYTHONPATH that names this folder.
    code = "import sys; print(' '.join(name.split('.')[0] for name in sys.modules))"
    early = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
    names = sorted(imported_names() - early)
    for name in names:
        (folder / f"{name}.py").write_text(
            f"open({str(base / 'ran')!r}, 'a').write({name!r} + chr(10))\nraise SystemExit(0)\n"
        )
    while attempted := tried_at_start(folder, base / "ran"):
        for name in attempted:
            (folder / f"{name}.py").unlink()
        names = [name for name in names if name not in attempted]
    assert len(names) > 150 and {
        "torch",
        "transformers",
        "hubtools",
        "json",
        "yaml",
        "safetensors",
        "jsonschema",
        "llavavit",
    } <= set(names)
    return folder, base / "ran"


def tried_at_start(folder: Path, trace: Path) -> list:
    """Names of planted modules that the interpreter imports by itself, such as for an editable install's hooks."""
    subprocess.run(
        [sys.executable, "-c", "pass"], cwd=folder, env={**os.environ, "PYTHONPATH": ":."}, capture_output=True
    )
    names = trace.read_text().split() if trace.exists() else []
    trace.unlink(missing_ok=True)
    return names


COMMANDS = {
    "assemble a recipe": ["assemble.py", "mine.toml", "--checkpoint", "weights.pth"],
    "verify": ["verify.py", ".", "--checkpoint", "weights.pth"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_modules_in_the_working_directory_are_never_imported(planted, tmp_path, command):
    folder, trace = planted
    script, *arguments = COMMANDS[command]
    output = ["--output", tmp_path / "made"] if script == "assemble.py" else []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["", ".", str(folder)])}
    done = subprocess.run(
        [sys.executable, SCRIPTS / script, *arguments, *output],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert not trace.exists(), trace.read_text()
    assert "Traceback" not in done.stderr, done.stderr[-2000:]
    assert done.returncode in (0, 1, 2) and (
        "PASS" in done.stdout or "FAIL" in done.stdout or "error: " in done.stderr
    ), done.stdout + done.stderr


def test_no_script_imports_them_by_itself(planted):
    folder, trace = planted
    for script in sorted(SCRIPTS.glob("*.py")):
        done = subprocess.run(
            [sys.executable, script, "--help"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": ":."},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0 and not trace.exists(), (
            script,
            done.stderr[-2000:],
            trace.exists() and trace.read_text(),
        )


FOREIGN_ENTRIES = {
    "a file of its own": ("config.json", {"auto_map": {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"}}),
    "another repository": (
        "config.json",
        {"auto_map": {"AutoModel": "someone/else--modeling_llava_vit.LlavaViTModel"}},
    ),
    "one entry more": ("config.json", {"auto_map": {"AutoTokenizer": "evil.Evil"}}),
    "a list of two": ("config.json", {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}}),
    "an entry inside": ("config.json", {"vision_config": {"auto_map": {"AutoConfig": "evil.Evil"}}}),
    "a pipeline": (
        "config.json",
        {"custom_pipelines": {"image-classification": {"impl": "evil.Evil", "pt": ["AutoModel"]}}},
    ),
    "the processor": ("preprocessor_config.json", {"auto_map": {"AutoImageProcessor": "evil.Evil"}}),
    "a processor of any kind": ("processor_config.json", {"auto_map": {"AutoProcessor": "evil.Evil"}}),
    "a tokenizer": ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}}),
}


def test_only_code_equal_to_the_package_runs_whatever_names_it(built, tmp_path):
    source, package = built
    trace = tmp_path / "ran"
    evil = f"open({str(trace)!r}, 'w')\nclass Evil: pass\n"
    for case, (file, change) in FOREIGN_ENTRIES.items():
        folder = shutil.copytree(source, tmp_path / case)
        (folder / "evil.py").write_text(evil)
        content = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
        merged = {**content, **change, "auto_map": {**content.get("auto_map", {}), **change.get("auto_map", {})}}
        (folder / file).write_text(json.dumps(merged))
        result = call(verify.main, folder)
        assert result.code == 1 and "FAIL  files: co" in result.out and "SKIP  load: configuration" in result.out, (
            case,
            result.out,
        )
    for file in sorted(source.glob("*.py")):
        if file.name == "example_usage.py":
            continue
        folder = shutil.copytree(source, tmp_path / file.name)
        (folder / file.name).write_text(file.read_text() + evil)
        result = call(verify.main, folder)
        assert result.code == 1 and "FAIL  files: code" in result.out and "SKIP  load: configuration" in result.out, (
            file,
            result.out,
        )
    assert not trace.exists()


# ---------------------------------------------------------------------------------------------------------------------
# The terminal
# ---------------------------------------------------------------------------------------------------------------------


def test_messages_are_one_short_line_of_printable_characters():
    for text in (
        "a\nb\r\nc",
        "\x1b]0;title\x07",
        "\u202e\u2066x\u2069",
        "\ud800",
        "\x00",
        "x" * 100_000,
        "é" * 600,
        "\u2028\u2029",
        "\x9b31m",
    ):
        shown = plain(text)
        assert shown.isprintable() and len(shown) <= 500 and "\n" not in shown
    assert plain("  a\n  b ") == "a b" and plain("début, 世界") == "début, 世界"
    assert plain("a" * 300 + "b" * 300 + "the end").endswith("the end")


def test_escapes_in_names_do_not_reach_the_table(built, tmp_path):
    folder = shutil.copytree(built[0], tmp_path / "folder")
    (folder / "model.safetensors").write_bytes(
        hostile.safetensors({hostile.ESCAPE: hostile.entry(offsets=[0, 9])}, bytes(8))
    )
    (folder / f"{hostile.BIDI}.sh").write_text("#!")
    result = call(verify.main, folder, "--verbose")
    assert result.code == 1 and all(line.isprintable() and len(line) < 600 for line in result.out.splitlines())


def test_what_honest_tools_write_is_taken(tmp_path):
    """The other side of every bound: a large state dict, many labels in many languages, long names of files."""
    recipe = load_recipe(str(write_recipe(tmp_path)))
    state = {**random_state(recipe), **{f"encoder.layers.{i}.rope.inv_freq": torch.zeros(1) for i in range(3000)}}
    torch.save(
        {"model": state, "optimizer": {"state": {i: {"exp_avg": torch.zeros(3)} for i in range(500)}}, "epoch": 3},
        tmp_path / "large.pth",
    )
    build_folder(tmp_path / "large", recipe, tmp_path / "large.pth")
    labels = {str(i): f"étiquette {i} 标签 (déjà-vu), n° {i % 900}" for i in range(20_000)}
    content = {
        "package": "llavavit",
        "architecture": "LlavaViTForImageClassification",
        "config": {**recipe.config, "id2label": labels},
    }
    assert recipe_from("labelled", content).build_config().num_labels == 20_000
