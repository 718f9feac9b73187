"""Loads a folder as a stranger would: through the Auto classes, in a process that sees neither this repository nor a
cache.

Two processes. The first loads, compares the weights, saves and computes; the second loads what was saved and
compares. Both are forks of one that has imported torch and transformers and nothing of the folder, so that the
seconds which that takes are spent once.
"""

import gc
import importlib
import importlib.metadata
import importlib.util
import json
import os
import signal
import sys
import traceback
from functools import partial
from typing import Callable, Dict, List, Mapping

import torch

from .example import run_example
from .exported import check_exported, read_inputs
from .forwards import expect, expect_equal, forwards_of
from .protocol import CheckFailed, CheckSkipped, Reporter, read_job
from .tensors import Differences, is_finite, read_tensor

SHARD_SIZE = "100MB"  # save_pretrained holds a shard's bytes in memory
BIG, SMALL = 10**9, 10**8  # bytes of weights
RELOAD = "round trip: reload"
NOTHING_MORE = 77  # exit code of a process that is content, and has nothing for the next one


class Hidden:
    """Import hook that hides modules: with an editable install, this repository's packages are importable
    everywhere."""

    def __init__(self, names: List[str]):
        self.names = names

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r} (hidden while a folder is verified)", name=name)
        return


class Probe:
    """The checks of one process, and what they hand on to one another.

    Args:
        facts: what the tools know of the model.
        job: "folder", "package" (model_type, config_class, base_prefix), "auto_class" and "architecture" of the
            weights, "tensors" (entries for `read_tensor`), "saved" and "exchange" (paths to write), "code" (names of
            the code files that are in use), "no_example" (why the example is not run, or "").
    """

    def __init__(self, job: Mapping, facts: object, reporter: Reporter):
        self.job = job
        self.facts = facts
        self.reporter = reporter
        self.folder: str = job["folder"]
        self.entries: Dict[str, Mapping] = {entry["name"]: entry for entry in job["tensors"]}
        self.model = None
        self.processor = None
        self.video_processor = None
        self._forwards = None
        self.recorded: Dict[str, torch.Tensor] = {}

    def steps(self) -> Dict[str, Callable[[], str]]:
        """The checks that the job names."""
        steps = {
            "weights: finite": self.finite,
            "load: configuration": self.load_configuration,
            "load: processor": self.load_processor,
            "load: base model": self.load_base_model,
            "load: model": self.load_model,
            "weights: loaded": self.compare_loaded,
            "round trip: save": self.save,
            RELOAD: self.reload,
            "example: runs": self.example,
        }
        for name in self.job["checks"]:
            group, subject = name.split(": ")
            if group == "forward":
                steps[name] = partial(self.forward, subject)
            if group == "exported":
                steps[name] = partial(self.exported, subject)
        return steps

    # -- weights

    def finite(self) -> str:
        broken = []
        for name, entry in self.entries.items():
            tensor = read_tensor(self.folder, entry)
            if not is_finite(tensor):
                broken.append(f"{name} has {int((~torch.isfinite(tensor)).sum())} values that are NaN or infinite")
        if broken:
            raise CheckFailed("\n".join([f"{len(broken)} of {len(self.entries)} tensors: {broken[0]}", *broken]))
        count = sum(entry["nbytes"] // getattr(torch, entry["dtype"]).itemsize for entry in self.entries.values())
        return f"{count:,} values in {len(self.entries)} tensors"

    def compare_loaded(self) -> str:
        self.need_model()
        return self.compare_with_file(self.model, "")

    def compare_with_file(self, model: torch.nn.Module, prefix: str) -> str:
        """Every weight of a model is in the file, and is the file's bit for bit; `prefix` is what the file puts
        before names."""
        loaded = model.state_dict()
        stored = {name[len(prefix) :]: entry for name, entry in self.entries.items() if name.startswith(prefix)}
        problems = [
            f"{name} is not in the file, so it was initialised at random" for name in loaded if name not in stored
        ]
        problems += [f"{name} is in the file, the model has no place for it" for name in stored if name not in loaded]
        if problems:
            raise CheckFailed("\n".join([f"{len(problems)} of {len(stored)} tensors: {problems[0]}", *problems]))
        differences = Differences()
        for name, tensor in loaded.items():
            differences.add(name, tensor, read_tensor(self.folder, stored[name]))
        if differences.problems:
            raise CheckFailed(differences.describe(len(loaded), "differ from the file's after loading"))
        return f"all {len(loaded)} tensors of {type(model).__name__} are there, bit for bit the file's"

    # -- loading

    def load_configuration(self) -> str:
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(self.folder, trust_remote_code=True)
        expect(type(config).__name__, self.job["config_class"], "configuration class")
        self.check_origin(type(config))
        described = config.to_dict()
        described["num_labels"] = config.num_labels
        self.reporter.send("value", name="config", value=json.loads(json.dumps(described, default=str)))
        versions = " and ".join(f"{name} {importlib.metadata.version(name)}" for name in ("transformers", "torch"))
        return f"{type(config).__name__} from the folder's own code, on {versions}"

    def check_origin(self, loaded: type) -> None:
        if not loaded.__module__.startswith("transformers_modules."):
            raise CheckFailed(f"{loaded.__name__} came from {loaded.__module__}, not from the folder's code")

    def load_processor(self) -> str:
        self.processor = self.processor_from(self.folder)
        tried = f"{type(self.processor).__name__}: {self.facts.try_processor(self, self.processor)}"
        if self.facts.video_processor is None:
            return tried
        self.video_processor = self.video_processor_from(self.folder)
        made = self.facts.video_processor.try_processor(self, self.video_processor)
        return f"{tried}; {type(self.video_processor).__name__}: {made}"

    def video_processor_from(self, folder: str):
        import transformers

        processor = transformers.AutoProcessor.from_pretrained(folder, trust_remote_code=True)
        expect(type(processor).__name__, self.facts.video_processor.class_name, "what AutoProcessor gives")
        self.check_origin(type(processor))
        return processor

    def processor_from(self, folder: str):
        import transformers

        stated = json.loads(_read(folder, "preprocessor_config.json"))
        if "feature_extractor_type" in stated:
            return transformers.AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=True)
        if stated.get("image_processor_type", "").startswith("CLIPImageProcessor") and not importlib.util.find_spec(
            "torchvision"
        ):
            # Some 5.x releases offer AutoImageProcessor only beside torchvision.
            return transformers.CLIPImageProcessor.from_pretrained(folder)
        return transformers.AutoImageProcessor.from_pretrained(folder, trust_remote_code=True)

    def fail(self, problem: str) -> None:
        raise CheckFailed(problem)

    def picture(self):
        """A picture to try processors with."""
        from PIL import Image

        return Image.frombytes("RGB", (60, 45), bytes(range(256)) * 31 + bytes(164))

    def model_config(self) -> dict:
        return json.loads(_read(self.folder, "config.json"))

    def load_base_model(self) -> str:
        """AutoModel on a folder whose weights belong to a model with a head: everything but the head must arrive."""
        base = self.from_folder("AutoModel", self.folder)
        return self.compare_with_file(base, self.job["base_prefix"])

    def load_model(self) -> str:
        gc.collect()
        self.model = self.from_folder(self.job["auto_class"], self.folder)
        expect(type(self.model).__name__, self.job["architecture"], "model class")
        attention = self.model.config._attn_implementation
        return (
            f"{self.job['auto_class']} gives {type(self.model).__name__} in {str(self.model.dtype)[6:]}, "
            f"attention {attention}"
        )

    def from_folder(self, auto_class: str, folder: str) -> torch.nn.Module:
        import transformers

        loader = getattr(transformers, auto_class)
        try:
            model = loader.from_pretrained(folder, trust_remote_code=True, **self.load_arguments())
        except RuntimeError as error:  # transformers tells mismatched sizes in a log that is not shown
            self.check_shapes(loader, folder)
            raise error
        self.check_origin(type(model))
        return model.eval()

    def check_shapes(self, loader: type, folder: str) -> None:
        """Fails with the tensors whose shapes are not those that the configuration asks for."""
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
        with torch.device("meta"):
            model = loader.from_config(config, trust_remote_code=True)
        wanted = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
        stored = {name: list(entry["shape"]) for name, entry in self.entries.items()}
        problems = [
            f"{name} has shape {stored[name]} in the file, {shape} by config.json"
            for name, shape in wanted.items()
            if stored.get(name, shape) != shape
        ]
        if problems:
            raise CheckFailed("\n".join([f"{len(problems)} of {len(wanted)} tensors: {problems[0]}", *problems]))

    def load_arguments(self) -> dict:
        import transformers

        release = tuple(int(part) for part in transformers.__version__.split(".")[:2])
        arguments = {"dtype" if release >= (4, 56) else "torch_dtype": "auto"}
        size = sum(entry["nbytes"] for entry in self.entries.values())
        if release < (5, 0) and size > BIG and importlib.util.find_spec("accelerate"):
            arguments["low_cpu_mem_usage"] = True  # without it, 4.x holds a big model twice
        return arguments

    def need_model(self) -> None:
        if self.model is None:
            raise CheckSkipped("not run: the model was not loaded")

    # -- forward

    def forward(self, subject: str) -> str:
        return self.forwards().check(subject)

    def forwards(self):
        """The forward checks, in float32: in fewer bits, rounding would hide what they look for."""
        self.need_model()
        if self._forwards is None:
            self._forwards = forwards_of(self.facts.forwards, self.model.float())
            self.recorded = self._forwards.recorded
        return self._forwards

    def write_exchange(self) -> None:
        if self.recorded:
            torch.save(self.recorded, self.job["exchange"])

    # -- exported files

    def exported(self, name: str) -> str:
        """An exported file gives what the model gives."""
        self.need_model()
        graphs = self.facts.graphs(self.model.config, type(self.model).__name__)
        given = {file: read_inputs(self, file) for file in self.job["given_files"]}
        return check_exported(os.path.join(self.folder, name), self.model.float(), graphs, given)

    # -- example

    def example(self) -> str:
        self.need_model()
        if self.job["no_example"]:
            raise CheckSkipped(self.job["no_example"])
        self.model = self._forwards = None  # the example loads a model of its own
        gc.collect()
        return run_example(os.path.join(self.folder, "example_usage.py"))

    # -- round trip

    def save(self) -> str:
        self.need_model()
        if self.job["no_room"]:
            raise CheckSkipped(self.job["no_room"])
        saved = self.job["saved"]
        self.model.save_pretrained(saved, max_shard_size=SHARD_SIZE)
        if self.processor is not None:
            self.processor.save_pretrained(saved)
        if self.video_processor is not None:
            self.video_processor.save_pretrained(saved)
        names = sorted(os.listdir(saved))
        problems = [f"{name} was not saved" for name in self.job["code"] if name not in names]
        problems += [
            f"{name} was saved with other bytes"
            for name in self.job["code"]
            if name in names and _read(saved, name) != _read(self.folder, name)
        ]
        problems += [f"{name} was saved" for name in names if name.endswith((".bin", ".pt", ".pth"))]
        kept = json.loads(_read(saved, "config.json")).get("auto_map", {})
        original = self.model_config()["auto_map"]
        wanted = ["AutoConfig", "AutoModel", self.job["auto_class"]]
        problems += [
            f"the saved auto_map has {kept.get(auto)!r} for {auto}"
            for auto in dict.fromkeys(wanted)
            if kept.get(auto) != original[auto]
        ]
        if problems:
            raise CheckFailed("\n".join([problems[0], *problems]))
        shards = sum(name.endswith(".safetensors") for name in names)
        return f"code, auto_map and weights kept ({shards} weight file{'s' * (shards > 1)})\nsaved: {', '.join(names)}"

    def reload(self) -> str:
        self.model = self.from_folder(self.job["auto_class"], self.job["saved"])
        same = self.compare_with_file(self.model, "")
        if os.path.exists(os.path.join(self.job["saved"], "preprocessor_config.json")):
            expect(
                _settings(self.processor_from(self.job["saved"])),
                _settings(self.processor_from(self.folder)),
                "processor after reloading",
            )
        if os.path.exists(os.path.join(self.job["saved"], "video_preprocessor_config.json")):
            expect(
                _settings(self.video_processor_from(self.job["saved"])),
                _settings(self.video_processor_from(self.folder)),
                "video processor after reloading",
            )
        recorded = torch.load(self.job["exchange"], weights_only=True) if os.path.exists(self.job["exchange"]) else {}
        worst = 0.0
        for case in cases_of(recorded):
            inputs, expected = case_of(recorded, case)
            worst = max(
                worst,
                expect_equal(self.forwards().run(**inputs), expected, f"{case}, before saving and after reloading"),
            )
        return f"{same}; outputs as before saving within {worst:.1e} on {', '.join(cases_of(recorded)) or 'nothing'}"


def cases_of(recorded: Mapping[str, torch.Tensor]) -> List[str]:
    return list(dict.fromkeys(name.split("/")[0] for name in recorded))


def case_of(recorded: Mapping[str, torch.Tensor], case: str):
    """Inputs and outputs of a case of `Forwards.recorded`."""
    return tuple(
        {name.split("/")[2]: tensor for name, tensor in recorded.items() if name.startswith(f"{case}/{side}/")}
        for side in ("in", "out")
    )


def _read(folder: str, name: str) -> bytes:
    with open(os.path.join(folder, name), "rb") as file:
        return file.read()


def _settings(processor) -> dict:
    return {key: value for key, value in processor.to_dict().items() if not key.startswith("_") and key != "auto_map"}


def main() -> None:
    """Runs the job named on the command line."""
    job = read_job()
    facts = facts_of(job)
    sys.path = [path for path in sys.path if os.path.realpath(path) not in job["hidden_paths"]]
    sys.meta_path.insert(0, Hidden(job["hidden_modules"]))
    import_libraries()
    if sum(entry["nbytes"] for entry in job["tensors"]) < SMALL:
        torch.set_num_threads(1)  # threads that wait for each other cost a small model more than they give
    torch.manual_seed(0)
    reporter = Reporter()
    first = [name for name in job["checks"] if name != RELOAD]
    if in_fork(lambda: inspect(job, facts, reporter, first)) and RELOAD in job["checks"]:
        reporter.run([RELOAD], Probe(job, facts, reporter).steps())
    reporter.send("done")


def inspect(job: Mapping, facts: object, reporter: Reporter, names: List[str]) -> bool:
    """Runs the checks of the first process. Gives whether there is something to reload."""
    probe = Probe(job, facts, reporter)
    passed = reporter.run(names, probe.steps())
    probe.write_exchange()
    return {"weights: loaded", "round trip: save"} <= set(passed)


def facts_of(job: Mapping) -> object:
    """What the tools know of the model. It is read first: afterwards nothing of this repository can be found any
    more."""
    sys.path.insert(0, job["scripts"])
    facts = importlib.import_module(f"hubtools.models.{job['package']}").PACKAGE
    sys.path.remove(job["scripts"])
    for name in [name for name in sys.modules if name.split(".")[0] in job["hidden_modules"]]:
        del sys.modules[name]
    return facts


def import_libraries() -> None:
    """What loading any folder imports in the end, whatever the release calls the modules."""
    from transformers import AutoConfig, AutoImageProcessor, AutoModel, PreTrainedModel, ProcessorMixin  # noqa: F401


def in_fork(work: Callable[[], bool]) -> bool:
    """Does the work in a fork, which leaves nothing behind in this process; ends as the fork ends where that does not
    end well.

    Where forking is not safe once libraries have their threads (outside Linux), the work is done here.
    """
    if sys.platform != "linux":
        return work()
    process = os.fork()
    if process == 0:
        code = 1
        try:
            code = 0 if work() else NOTHING_MORE
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(process, 0)
    if os.WIFSIGNALED(status):
        signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    code = os.WEXITSTATUS(status)
    if code not in (0, NOTHING_MORE):
        sys.exit(code)
    return code == 0
