"""What there is to know about a model before the tools can serve it. `models/` fills this in, one file per model.

Nothing here, and nothing in a model's file but its functions' bodies, imports torch: whoever only looks at files
needs none.
"""

import importlib
import re
import sys
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any, Callable, Collection, Dict, Iterator, List, Mapping, Optional, Tuple

from .errors import UserError

ROOT = Path(__file__).resolve().parents[2]
Shapes = Mapping[str, Tuple[int, ...]]
LONGEST_NAME, MOST_NUMBERS = 300, 4  # of a tensor: no layout has longer names, or more numbers in one
NUMBER, KIND = re.compile("[0-9]+"), re.compile(r"(?<=\.)(weight|bias)$")


@dataclass(frozen=True)
class Rule:
    """One line of a key map: `source` in the foreign layout, `targets` in the Hub layout (several: stacked in the
    source).

    In both, `{i}` stands for a layer's number, and `{p}` for `weight` or `bias` at its end.
    """

    source: str
    targets: Tuple[str, ...]


def rules(*pairs: Tuple[str, object]) -> Tuple[Rule, ...]:
    return tuple(Rule(source, (target,) if isinstance(target, str) else tuple(target)) for source, target in pairs)


def same(*templates: str) -> Tuple[Rule, ...]:
    """Rules for keys that are called alike in the Hub layout."""
    return rules(*((template, template) for template in templates))


@dataclass(frozen=True)
class Layout:
    """A named key map.

    Attributes:
        dropped: patterns of keys that carry no information, such as stored rotary frequencies.
        optional: patterns of keys that a model may do without; left behind where it does.
        prefix: what stands before all names in the bigger model that this layout is a part of.
    """

    name: str
    rules: Tuple[Rule, ...]
    dropped: Tuple[str, ...] = ()
    optional: Tuple[str, ...] = ()
    prefix: str = ""

    def match(self, name: str) -> Optional[Tuple[Rule, Dict[str, str]]]:
        """The rule for a key of this layout, and what its placeholders stand for."""
        return _find(self._by_source, name)

    def match_target(self, name: str) -> Optional[Tuple[Rule, Dict[str, str]]]:
        """The rule whose first target is a key of the Hub layout, and what its placeholders stand for."""
        return _find(self._by_target, name)

    def drops(self, name: str) -> bool:
        return any(re.search(pattern, name) for pattern in self.dropped)

    def may_leave(self, name: str) -> bool:
        return any(re.search(pattern, name) for pattern in self.optional)

    @cached_property
    def _by_source(self) -> Dict[str, Rule]:
        return {rule.source: rule for rule in reversed(self.rules)}

    @cached_property
    def _by_target(self) -> Dict[str, Rule]:
        return {rule.targets[0]: rule for rule in reversed(self.rules)}


def _find(table: Mapping[str, Rule], name: str) -> Optional[Tuple[Rule, Dict[str, str]]]:
    return next(((table[template], groups) for template, groups in _templates(name) if template in table), None)


def _templates(name: str) -> Iterator[Tuple[str, Dict[str, str]]]:
    """The templates that a key may be an instance of: looked up, so that a key costs the same however many rules
    there are."""
    if len(name) > LONGEST_NAME:
        return
    kind = KIND.search(name)
    kinds = [(name, {})] + ([(f"{name[: kind.start()]}{{p}}", {"p": kind.group()})] if kind else [])
    for text, groups in kinds:
        yield text, groups
        for number in islice(NUMBER.finditer(text), MOST_NUMBERS):
            yield f"{text[: number.start()]}{{i}}{text[number.end() :]}", {**groups, "i": number.group()}


def fill(template: str, groups: Mapping[str, str]) -> str:
    for placeholder, value in groups.items():
        template = template.replace(f"{{{placeholder}}}", value)
    return template


@dataclass(frozen=True)
class Host:
    """A bigger model that has this one as a part.

    Attributes:
        section: the key of its config.json under which the part's configuration stands.
        defaults: what the section means by saying nothing.
        fixed: the only value of a setting with which the part computes what the model here computes.
    """

    section: str
    defaults: Mapping[str, Any]
    fixed: Mapping[str, Any]


@dataclass(frozen=True)
class Load:
    """Inputs of another size for a benchmark, and how many units of work they are."""

    name: str
    make_inputs: Callable[[Any], Dict[str, Any]]
    units: int


@dataclass(frozen=True)
class Case:
    """One named measurement: a package's model and a reference, with equal weights and equal inputs, in float32.

    Attributes:
        name: what `--case` asks for.
        package: its name.
        architecture: class of the package.
        config: keyword arguments of its configuration class; as a dictionary, the reference's argument.
        make_inputs: makes the keyword arguments of the model's forward, from a seeded generator.
        reference: default reference, FILE.py:NAME relative to the repository.
        output: key of the outputs, a named tuple or dictionary, whose largest difference is reported.
        loads: inputs over which the time per unit of work should stay the same.
        unit: what `Load.units` counts.
        largest: makes the inputs of the largest sample of a pack alone, whose peak memory the pack's is held against.
        heavy: whether it takes minutes, and is measured only when it is named.
    """

    name: str
    package: str
    architecture: str
    config: Mapping[str, object]
    make_inputs: Callable[[Any], Dict[str, Any]]
    reference: str
    output: str
    loads: Tuple[Load, ...] = ()
    unit: str = ""
    largest: Optional[Callable[[Any], Dict[str, Any]]] = None
    heavy: bool = False


@dataclass(frozen=True)
class Graph:
    """A model as an exported file holds it: a function of named tensors, of sizes that vary, with named outputs.

    Attributes:
        name: of the file, without its ending.
        inputs: name -> sizes, each a number, or the name of one that varies.
        outputs: the same.
        steps: of a size that varies, the number of which it is a multiple, where that is not 1.
        opset: the version of ONNX's operators that runs it best.
        make_inputs: (sizes that vary, generator) -> tensors by name.
        trials: sizes to export with (the first, in which no size is 1) and to compare with.
    """

    name: str
    inputs: Mapping[str, Tuple[Any, ...]]
    outputs: Mapping[str, Tuple[Any, ...]]
    make_inputs: Callable[[Mapping[str, int], Any], Dict[str, Any]]
    trials: Tuple[Mapping[str, int], ...]
    steps: Mapping[str, int] = field(default_factory=dict)
    opset: int = 20


@dataclass(frozen=True)
class VideoProcessor:
    """A processor of video files that ships as code, beside transformers' CLIPImageProcessor.

    Attributes:
        modules: its code, and that of a processor of pictures which it hands them to; the first holds the class.
        class_name: of the processor.
        defaults: (config, CLIP settings) -> its settings where nothing else is said.
        try_processor: runs a folder's processor (probe, processor) and says what came of it.
    """

    modules: Tuple[str, ...]
    class_name: str
    defaults: Callable[[Any, Mapping[str, Any]], Dict[str, Any]]
    try_processor: Callable[[Any, Any], str]

    @property
    def target(self) -> str:
        """What an `auto_map` says for it."""
        return f"{self.modules[0]}.{self.class_name}"

    @property
    def auto_map(self) -> Dict[str, str]:
        """The entries of video_preprocessor_config.json."""
        return {"AutoProcessor": self.target, "AutoVideoProcessor": self.target}

    @property
    def image_auto_map(self) -> Dict[str, str]:
        """The entry of preprocessor_config.json, where `AutoProcessor` looks; what images go through stays CLIP's."""
        return {"AutoProcessor": self.target}


@dataclass(frozen=True)
class Package:
    """All that the tools know of one model.

    Attributes:
        name: of the package at the repository's root, and of this model's file in `models/`.
        model_type: in config.json.
        base_prefix: what transformers puts before the base model's names inside a model with a head.
        config_class, configuration, modeling: the class, and the modules that hold it and the models.
        models: Auto class -> the class that serves it; a folder is one of these.
        views: Auto class -> a class that any folder of the package may be loaded as, and none is.
        processors: Auto class -> (module, class), where a processor ships as code.
        processors_if_named: whether transformers' CLIPImageProcessor serves folders that name none of `processors` as
            their `image_processor_type`.
        own_defaults: config -> settings of such a processor that follow from the model's.
        video_processor: the processor of video files, where the model has one.
        aliases: foreign model types whose weights and configuration the model takes as they are.
        inert_keys: of foreign configurations, which take no part in the computation.
        hosts: the bigger models that the model is a part of, by model type.
        layouts: the layouts in which users hold the weights; "hub" is the model's own.
        sizes: the configuration values that the shapes of the base model's tensors show; `layers_of` helps.
        parameters: how many a configuration describes, without the classifier, to within single vectors; `blocks`
            helps.
        forwards: the forward checks of `verify.py`, mixed into probes.forwards.Forwards; `subjects` names its methods.
        try_processor: runs a folder's processor (probe, processor) and says what came of it.
        card_values: (recipe, config) -> what the templates of the model card leave open.
        subject: (recipe, config) -> which templates show the model, where those of its Auto class would not do.
        default_processor: config -> what transformers' CLIPImageProcessor is told where it serves.
        inputs: what the model is trained on: "pixels" or "bytes".
        lora_targets: regular expression of the linear layers that get adapters.
        cases: of the benchmark.
        graphs: (config, architecture) -> what the model is exported as; UserError for one that cannot be.
        array_lines: (config, settings of the processor) -> lines of NumPy that make the first graph's inputs.
    """

    name: str
    model_type: str
    base_prefix: str
    config_class: str
    configuration: str
    modeling: str
    models: Mapping[str, str]
    layouts: Tuple[Layout, ...]
    sizes: Callable[[Shapes], Dict[str, Any]]
    parameters: Callable[[Any], int]
    forwards: type
    try_processor: Callable[[Any, Any], str]
    card_values: Callable[[Any, Any], Dict[str, Any]]
    default_processor: Callable[[Any], Dict[str, Any]] = lambda config: {}
    inputs: str = "pixels"
    lora_targets: str = ""
    cases: Tuple[Case, ...] = ()
    processors: Mapping[str, Tuple[str, str]] = field(default_factory=dict)
    views: Mapping[str, str] = field(default_factory=dict)
    video_processor: Optional[VideoProcessor] = None
    aliases: Tuple[str, ...] = ()
    inert_keys: Tuple[str, ...] = ()
    hosts: Mapping[str, Host] = field(default_factory=dict)
    graphs: Callable[[Any, str], Tuple[Graph, ...]] = lambda config, architecture: ()
    array_lines: Callable[[Any, Mapping[str, Any]], str] = lambda config, settings: ""
    processors_if_named: bool = False
    own_defaults: Callable[[Any], Dict[str, Any]] = lambda config: {}
    subject: Callable[[Any, Any], Optional[str]] = lambda recipe, config: None

    @property
    def folder(self) -> Path:
        return ROOT / self.name

    def auto_class_of(self, architecture: str) -> str:
        for auto_class, class_name in self.models.items():
            if class_name == architecture:
                return auto_class
        known = ", ".join(sorted(self.models.values()))
        raise UserError(f"architecture {architecture!r} is not in package {self.name!r}; known: {known}")

    def auto_map(self, processor: Optional[str] = None) -> dict:
        """The `auto_map` of config.json; `processor` names the Auto class of a processor that ships with the model."""
        entries = {"AutoConfig": f"{self.configuration}.{self.config_class}"}
        entries.update({auto: f"{self.modeling}.{cls}" for auto, cls in {**self.models, **self.views}.items()})
        if processor in self.processors:
            module, cls = self.processors[processor]
            entries[processor] = f"{module}.{cls}"
        return entries

    def has_own_processor(self, settings: Mapping[str, Any]) -> bool:
        """Whether one of `processors` serves a folder with these settings; else transformers' CLIPImageProcessor does."""
        named = settings.get("image_processor_type") in [name for _, name in self.processors.values()]
        return named or bool(self.processors) and not self.processors_if_named

    def processor_auto_map(self, settings: Mapping[str, Any], auto_class: Optional[str]) -> Dict[str, str]:
        """The `auto_map` of a preprocessor_config.json with these settings, for the processor of an Auto class."""
        own = {auto_class: self.targets()[auto_class]} if auto_class and self.has_own_processor(settings) else {}
        return {**own, **(self.video_processor.image_auto_map if self.video_processor else {})}

    def targets(self) -> Dict[str, str]:
        """Every entry that an `auto_map` in a folder of this package may have, and where it leads."""
        processors = {auto: f"{module}.{cls}" for auto, (module, cls) in self.processors.items()}
        return {**self.auto_map(), **processors, **(self.video_processor.auto_map if self.video_processor else {})}

    def modules(self, processors: Collection[str]) -> List[str]:
        """The code that a folder with these processors (Auto classes) holds; that of video files is in each."""
        own = [module for auto, (module, _) in self.processors.items() if auto in processors]
        video = self.video_processor.modules if self.video_processor else ()
        return list(dict.fromkeys([self.configuration, self.modeling, *own, *video]))

    def load(self) -> ModuleType:
        """Imports the package of this repository, never another installed one."""
        if sys.path[:1] != [str(ROOT)]:
            sys.path.insert(0, str(ROOT))
        return importlib.import_module(self.name)

    def layout(self, name: str) -> Layout:
        for layout in self.layouts:
            if layout.name == name:
                return layout
        raise UserError(
            f"{self.name} has no layout {name!r}; known: {', '.join(layout.name for layout in self.layouts)}"
        )

    def without_prefix(self, name: str) -> str:
        return name[len(self.base_prefix) :] if name.startswith(self.base_prefix) else name

    def sizes_of(self, shapes: Shapes) -> Dict[str, Any]:
        """The configuration values that shapes in the Hub layout show, with or without the base model's prefix.

        Raises:
            KeyError: a tensor that every model of this kind has is not there.
        """
        bare = {self.without_prefix(name): tuple(shape) for name, shape in shapes.items()}
        sizes = {**self.sizes(bare), "num_hidden_layers": layers_of(bare)}
        if "encoder.layers.0.mlp.fc1.weight" in bare:
            sizes["intermediate_size"] = bare["encoder.layers.0.mlp.fc1.weight"][0]
        if "classifier.weight" in bare:
            sizes["num_labels"] = bare["classifier.weight"][0]
        return sizes


def blocks(config: Any) -> int:
    """Parameters of a transformer's blocks."""
    width, inner = config.hidden_size, config.intermediate_size
    return config.num_hidden_layers * (4 * width**2 + 2 * width * inner + inner + 9 * width)


def layers_of(shapes: Shapes) -> int:
    """How many layers names such as `encoder.layers.5.…` show."""
    found = map(re.compile(r"encoder\.layers\.(\d+)\..+").fullmatch, shapes)
    return 1 + max((int(match.group(1)) for match in found if match), default=-1)
