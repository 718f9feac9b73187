"""transformers' Trainer on one model and one data set: settings in, the best weights and their test figures out."""

import json
import math
import os
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional

import torch
from transformers import Trainer, TrainerCallback, TrainerState, TrainingArguments

from ..errors import UserError, system_errors_told
from ..assembly.weights import write_json
from .data import Data
from .lora import merged

SETTINGS_NAME = "settings.json"
CURVE_NAME = "loss.json"
FINAL_NAME = "final"
STATE_NAME = "trainer_state.json"  # of a checkpoint; written last


@dataclass(frozen=True)
class Settings:
    """Everything that decides the outcome of a run. A run is resumed only under the same settings.

    Attributes:
        batch_size: samples per step, over all processes.
        max_steps: ends training early; None for all epochs.
        warmup: share of the steps in which the learning rate rises; it falls by a cosine afterwards.
        save_steps: steps between checkpoints (and validations); None for one at the end of every epoch.
        lora: rank of the adapters, 0 to train all weights.
        fsdp: shard parameters, gradients and optimizer over the processes.
    """

    folder: str
    dataset: str
    read_files_as: str
    epochs: float
    batch_size: int
    learning_rate: float
    weight_decay: float
    label_smoothing: float
    warmup: float
    max_steps: Optional[int]
    save_steps: Optional[int]
    seed: int
    lora: int
    bf16: bool
    fsdp: bool


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
        outputs = model(**inputs)
        smoothing = self.label_smoothing if model.training else 0.0
        loss = torch.nn.functional.cross_entropy(outputs.logits.float(), labels, label_smoothing=smoothing)
        return (loss, {"loss": loss, "logits": outputs.logits}) if return_outputs else loss


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
    arguments = training_arguments(settings, room, len(data.train))
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
        with system_errors_told("training stopped", f"the same command goes on from the last whole checkpoint in {room}"):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    figures = measure(trainer, data)
    return Outcome(final_model(trainer, settings, room), figures, trainer.state.global_step)


def training_arguments(settings: Settings, room: Path, size: int) -> TrainingArguments:
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if settings.batch_size % processes:
        raise UserError(f"--batch-size {settings.batch_size} must be a multiple of the number of processes, {processes}")
    on_cpu = not torch.cuda.is_available()
    steps_per_epoch = max(size // settings.batch_size, 1)
    steps = settings.max_steps or math.ceil(settings.epochs * steps_per_epoch)
    when = "epoch" if settings.save_steps is None else "steps"
    optional: Dict[str, Any] = {"save_steps": settings.save_steps, "eval_steps": settings.save_steps} if settings.save_steps else {}
    if settings.fsdp:
        # The layers to shard by are the model's own `_no_split_modules`.
        optional.update(fsdp="full_shard auto_wrap", fsdp_config={"fsdp_version": 2})
    if on_cpu and processes > 1:
        optional["ddp_backend"] = "gloo"
    return TrainingArguments(
        output_dir=str(room),
        per_device_train_batch_size=settings.batch_size // processes,
        per_device_eval_batch_size=max(settings.batch_size, 64) // processes,
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
            _agree_on_settings(room, settings)
            _drop_broken_checkpoints(room)
    checkpoints = _checkpoints(room)
    return checkpoints[-1] if checkpoints else None


def _check_is_room(room: Path) -> None:
    if not (room / SETTINGS_NAME).is_file():
        raise UserError(f"{room} is where checkpoints would go, but it is not a folder of an earlier run; move it away")


def _agree_on_settings(room: Path, settings: Settings) -> None:
    if not room.exists():
        room.mkdir(parents=True)
        write_json(room / SETTINGS_NAME, asdict(settings))
    _check_is_room(room)
    earlier = json.loads((room / SETTINGS_NAME).read_text(encoding="utf-8"))
    differing = [f"{key} was {earlier.get(key)!r}, is {value!r}" for key, value in asdict(settings).items() if earlier.get(key) != value]
    if differing:
        raise UserError(f"{room} holds an unfinished run with other settings ({'; '.join(differing)}); use the same ones, or --no-resume to start anew")


def _checkpoints(room: Path) -> List[Path]:
    return sorted(room.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))


def _drop_broken_checkpoints(room: Path) -> None:
    """A kill may leave a checkpoint half-written. Its state file is written last, so that one tells."""
    for path in _checkpoints(room):
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
