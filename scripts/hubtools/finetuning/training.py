"""transformers' Trainer on one model and one data set: settings in, the best weights and their test figures out."""

import contextlib
import json
import logging
import math
import os
import shutil
import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

import torch
from transformers import Trainer, TrainerCallback, TrainerState, TrainingArguments

from ..assembly.weights import write_json
from ..errors import UserError, system_errors_told
from .data import Data
from .inputs import join_packs
from .starting_point import merged

logger = logging.getLogger(__name__)

SETTINGS_NAME = "settings.json"
CURVE_NAME = "loss.json"
FINAL_NAME = "final"
STATE_NAME = "trainer_state.json"  # of a checkpoint; written last


INCIDENTAL = {"incidental": True}  # of settings that change how fast and in how much memory a run is computed


@dataclass(frozen=True)
class Settings:
    """What a run is made of. It is resumed only under the same settings, but for incidental ones.

    Attributes:
        batch_size: samples of a forward pass, over all processes.
        accumulation: batches whose gradients are added up for a step.
        max_steps: ends training early; None for all epochs.
        warmup: share of the steps in which the learning rate rises; it falls by a cosine afterwards.
        save_steps: steps between checkpoints (and validations); None for one at the end of every epoch.
        lora: rank of the adapters, 0 to train all weights.
        freeze: train the classifier alone.
        augment: how training pictures are varied.
        native_resolution: pictures keep their size and aspect.
        max_num_patches: of one picture then; None for the processor's.
        fsdp: shard parameters, gradients and optimizer over the processes.
        checkpointing: compute activations again in the backward pass, to save memory.
        workers: processes that load data.
    """

    folder: str
    dataset: str
    read_files_as: str
    epochs: float
    batch_size: int
    accumulation: int
    learning_rate: float
    weight_decay: float
    label_smoothing: float
    warmup: float
    max_steps: Optional[int]
    save_steps: Optional[int]
    seed: int
    lora: int
    freeze: bool
    augment: str
    native_resolution: bool
    max_num_patches: Optional[int]
    bf16: bool
    fsdp: bool
    checkpointing: bool = field(metadata=INCIDENTAL)
    workers: int = field(metadata=INCIDENTAL)

    @property
    def samples_per_step(self) -> int:
        return self.batch_size * self.accumulation

    def deciding(self) -> Dict[str, Any]:
        """Those that decide the outcome."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.metadata != INCIDENTAL}


@dataclass
class Outcome:
    """What training gave: the model (on the main process only, elsewhere None) and its figures."""

    model: Optional[Any]
    figures: Dict[str, float]
    steps: int


class EpochTeller(TrainerCallback):
    """Tells the data which epoch begins, also when training is resumed in the middle of it."""

    def __init__(self, dataset: Any):
        self.dataset = dataset

    def on_epoch_begin(self, args, state, control, **kwargs):
        if hasattr(self.dataset, "set_epoch"):
            # A sum of fractions of an epoch may end just below the next whole number.
            self.dataset.set_epoch(math.floor((state.epoch or 0) + 1e-6))


class LossCurve(TrainerCallback):
    """Keeps the loss of every logged step in a file, for plots and comparisons."""

    def __init__(self, path: Path):
        self.path = path

    def on_log(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            write_json(self.path, [[entry["step"], entry["loss"]] for entry in state.log_history if "loss" in entry])


class ClassifierTrainer(Trainer):
    """Trainer whose odd steps show the model only a part of its input, where the data know which (`sparse_inputs`).

    The step's number decides, not chance: the processes of a run agree, and a resumed run goes on as it would have.
    """

    def __init__(self, *args, data: Data, label_smoothing: float, **kwargs):
        super().__init__(*args, **kwargs)
        self.data, self.label_smoothing, self.test_sparsely = data, label_smoothing, False
        # The loss is this class's, a mean over the batch; without this, transformers may scale it by its own count.
        self.model_accepts_loss_kwargs = False
        self.padding_told = False

    def get_eval_dataloader(self, eval_dataset=None):
        # transformers has one setting for training, where equal batches are wanted, and for measuring, where every sample counts.
        drop_last, self.args.dataloader_drop_last = self.args.dataloader_drop_last, False
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.args.dataloader_drop_last = drop_last

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        labels = inputs.pop("labels")
        sparse = self.state.global_step % 2 == 1 if model.training else self.test_sparsely
        if sparse and self.data.sparse_inputs is not None:
            inputs = {**inputs, **self.data.sparse_inputs(inputs)}
        logits = self.logits_of(model, inputs)
        smoothing = self.label_smoothing if model.training else 0.0
        loss = torch.nn.functional.cross_entropy(logits.float(), labels, label_smoothing=smoothing)
        return (loss, {"loss": loss, "logits": logits}) if return_outputs else loss

    def logits_of(self, model, inputs) -> torch.Tensor:
        """(B, labels). Where padding moves scores, training says so, and measuring goes without, as a pipeline does."""
        parts = self.data.apart(inputs) if self.data.apart is not None else []
        if (
            len(parts) < 2 or self.args.fsdp
        ):  # sharded models must be called equally often everywhere; their batches hold one sample
            return model(**inputs).logits
        if model.training:
            if not self.padding_told and self.is_world_process_zero():
                logger.warning(
                    "batches of unequal lengths are padded, and in a model with mask_padding=False padding takes part; accuracy is measured without it"
                )
            self.padding_told = True
            return model(**inputs).logits
        answers = [(rows, model(**part).logits) for rows, part in parts]
        logits = answers[0][1].new_empty(len(inputs["input_ids"]), answers[0][1].shape[-1])
        for rows, answer in answers:
            logits[rows] = answer
        return logits


def train(model: Any, data: Data, settings: Settings, room: Path, resume: bool) -> Outcome:
    """Trains, keeps the checkpoint with the best validation accuracy, and measures it on the test split.

    Args:
        model: with its head.
        data: what to train on.
        settings: of the run.
        room: folder for checkpoints. One of an earlier run with the same settings is continued when `resume`.
        resume: False starts anew.

    Raises:
        UserError: `room` is of a run with other settings, the batch does not divide among the processes, or a checkpoint
            could not be written.
    """
    arguments = training_arguments(settings, room, len(data.train), alone=settings.fsdp and data.apart is not None)
    if arguments.n_gpu > 1 and data.collate is join_packs:
        raise UserError(
            f"a pack cannot be divided among {arguments.n_gpu} GPUs of one process; run torchrun --nproc_per_node "
            f"{arguments.n_gpu} scripts/finetune.py ..., or choose one with CUDA_VISIBLE_DEVICES=0"
        )
    checkpoint = prepare_room(room, settings, resume, arguments)
    trainer = ClassifierTrainer(
        model=model,
        args=arguments,
        data=data,
        label_smoothing=settings.label_smoothing,
        train_dataset=data.train,
        eval_dataset=data.validation,
        data_collator=data.collate,
        compute_metrics=lambda prediction: {"accuracy": float((prediction.predictions == prediction.label_ids).mean())},
        preprocess_logits_for_metrics=lambda logits, labels: logits.argmax(-1),
        callbacks=[EpochTeller(data.train), LossCurve(room / CURVE_NAME)],
    )
    if checkpoint and trainer.is_world_process_zero():
        print(f"continuing from {checkpoint}", file=sys.stderr)
    if checkpoint and has_ended(checkpoint) and not settings.fsdp:
        # Killed between training and the folder's completion. train() would take one step more.
        trainer.state = TrainerState.load_from_json(str(checkpoint / STATE_NAME))
        trainer._load_from_checkpoint(str(best_of(checkpoint)))
    else:
        with (
            loading_errors_told(),
            system_errors_told(
                "training stopped", f"the same command goes on from the last whole checkpoint in {room}"
            ),
        ):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    with loading_errors_told():
        figures = measure(trainer, data)
    return Outcome(final_model(trainer, settings, room), figures, trainer.state.global_step)


@contextlib.contextmanager
def loading_errors_told() -> Iterator[None]:
    """A UserError of a process that loads data comes with that process's stack trace for a message: only its last line is kept."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error).rsplit("UserError: ", 1)[-1]) from error


def training_arguments(settings: Settings, room: Path, size: int, alone: bool = False) -> TrainingArguments:
    """The Trainer's settings for `size` samples; `alone` measures one sample at a time."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if settings.batch_size % processes:
        raise UserError(
            f"--batch-size {settings.batch_size} must be a multiple of the number of processes, {processes}"
        )
    on_cpu = not torch.cuda.is_available()
    steps_per_epoch = max(size // settings.samples_per_step, 1)
    steps = settings.max_steps or math.ceil(settings.epochs * steps_per_epoch)
    when = "epoch" if settings.save_steps is None else "steps"
    optional: Dict[str, Any] = (
        {"save_steps": settings.save_steps, "eval_steps": settings.save_steps} if settings.save_steps else {}
    )
    if settings.fsdp:
        # The layers to shard by are the model's own `_no_split_modules`.
        optional.update(fsdp="full_shard auto_wrap", fsdp_config={"fsdp_version": 2})
    if settings.checkpointing:
        optional.update(gradient_checkpointing=True, gradient_checkpointing_kwargs={"use_reentrant": False})
    if on_cpu and processes > 1:
        optional["ddp_backend"] = "gloo"
    return TrainingArguments(
        output_dir=str(room),
        per_device_train_batch_size=settings.batch_size // processes,
        per_device_eval_batch_size=1 if alone else settings.batch_size // processes,
        gradient_accumulation_steps=settings.accumulation,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps or -1,
        lr_scheduler_type="cosine",
        warmup_steps=round(settings.warmup * steps),
        eval_strategy=when,
        save_strategy=when,
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
        greater_is_better=True,
        save_total_limit=2,  # the best and the newest
        logging_strategy="steps",
        logging_steps=max(min(steps // 20, 50), 1),
        seed=settings.seed,
        data_seed=settings.seed,
        bf16=settings.bf16,
        use_cpu=on_cpu,
        dataloader_drop_last=size >= settings.batch_size,
        dataloader_pin_memory=not on_cpu,
        dataloader_num_workers=settings.workers,
        remove_unused_columns=False,
        label_names=["labels"],
        report_to="none",
        disable_tqdm=not sys.stderr.isatty(),
        **optional,
    )


def prepare_room(room: Path, settings: Settings, resume: bool, arguments: TrainingArguments) -> Optional[Path]:
    """Makes the folder for checkpoints; gives the checkpoint to continue from, or None."""
    with arguments.main_process_first(desc="preparing the folder for checkpoints"):
        if arguments.process_index == 0:
            if not resume and room.exists():
                _check_is_room(room)
                shutil.rmtree(room)
            _drop_broken_checkpoints(room)
            _agree_on_settings(room, settings)
    checkpoints = _checkpoints(room)
    return checkpoints[-1] if checkpoints else None


def _check_is_room(room: Path) -> None:
    if not (room / SETTINGS_NAME).is_file() and (not room.is_dir() or any(room.iterdir())):
        raise UserError(f"{room} is where checkpoints would go, but it is not a folder of an earlier run; move it away")


def _agree_on_settings(room: Path, settings: Settings) -> None:
    """Writes the settings down; where a run with others left a checkpoint, that is an error."""
    room.mkdir(parents=True, exist_ok=True)
    _check_is_room(room)
    if _checkpoints(room):
        earlier = json.loads((room / SETTINGS_NAME).read_text(encoding="utf-8"))
        differing = [
            f"{key} was {earlier.get(key)!r}, is {value!r}"
            for key, value in settings.deciding().items()
            if earlier.get(key) != value
        ]
        if differing:
            raise UserError(
                f"{room} holds an unfinished run with other settings ({'; '.join(differing)}); use the same ones, or --no-resume to start anew"
            )
    write_json(room / SETTINGS_NAME, settings.deciding())


def _checkpoints(room: Path) -> List[Path]:
    return sorted(room.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))


def _drop_broken_checkpoints(room: Path) -> None:
    """A kill may leave a checkpoint half-written. Its state file is written last, so that one tells."""
    for path in _checkpoints(room) if (room / SETTINGS_NAME).is_file() else []:
        try:
            state_of(path)
        except (OSError, ValueError):
            shutil.rmtree(path)


def state_of(checkpoint: Path) -> Dict[str, Any]:
    return json.loads((checkpoint / STATE_NAME).read_text(encoding="utf-8"))


def has_ended(checkpoint: Path) -> bool:
    state = state_of(checkpoint)
    return state["global_step"] >= state["max_steps"]


def best_of(checkpoint: Path) -> Path:
    """The best checkpoint that the last one knows of; by its name, because the folder may have moved since."""
    name = Path(state_of(checkpoint).get("best_model_checkpoint") or checkpoint).name
    return checkpoint.with_name(name) if checkpoint.with_name(name).is_dir() else checkpoint


def measure(trainer: ClassifierTrainer, data: Data) -> Dict[str, float]:
    """Accuracy of the best checkpoint: on validation and test, and on the test with sparse inputs where there are any."""
    figures = {
        "validation": trainer.evaluate(data.validation, metric_key_prefix="validation")["validation_accuracy"],
        "test": trainer.evaluate(data.test, metric_key_prefix="test")["test_accuracy"],
    }
    if data.sparse_inputs is not None:
        trainer.test_sparsely = True
        figures["sparse test"] = trainer.evaluate(data.test, metric_key_prefix="sparse_test")["sparse_test_accuracy"]
    return figures


def final_model(trainer: ClassifierTrainer, settings: Settings, room: Path) -> Optional[Any]:
    """The trained model, whole and plain, on the main process."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    if settings.fsdp:
        trainer.save_model(str(room / FINAL_NAME))  # all processes take part: each holds only its shards
    if not trainer.is_world_process_zero():
        return None
    if settings.fsdp:
        return type(model).from_pretrained(room / FINAL_NAME)
    return merged(model) if settings.lora else model
