"""One form of a case's model, or of a trained model, in a process of its own. See `worker`.

Its `main` takes the arguments SUBJECT FORM REFERENCE THREADS: a case or the name of a trained model, and a form's name.
"""

import tempfile
from pathlib import Path

import torch

from ..errors import run_script
from ..packages import package_named, package_of_type
from . import CASES, case_named
from .forms import form_named, make
from .models import OURS, build, inputs_of
from .worker import Runs, serve


class FormRuns(Runs):
    """What is asked of a form."""

    def __init__(self, subject: str, form: str):
        self._room = tempfile.TemporaryDirectory()
        self.inputs, self.output = {}, None
        if subject in CASES:
            self.case = case_named(subject)
            model, package = build(self.case, OURS, ""), package_named(self.case.package)
            self.inputs[""] = inputs_of(self.case)
        else:
            model, package = trained(subject)
            self.subject = subject
        made = make(form_named(form), model, package, Path(self._room.name))
        self.model, self.size = made.run, made.file_bytes

    def file_bytes(self) -> int:
        return self.size

    def save_logits(self, file: str) -> None:
        """Of the held-out data, and the classes."""
        from ..demos.held_out import held_out, logits_of

        data = held_out(self.subject)
        torch.save({"logits": logits_of(self.model, data), "labels": data.labels}, file)


def trained(name: str):
    """A trained model of hub_repos/ in float32, and its package."""
    from transformers import AutoConfig

    from ..demos.trained import DIGITS_MODEL

    folder = DIGITS_MODEL.parent / name
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    package = package_of_type(config.model_type)
    return getattr(package.load(), config.architectures[0]).from_pretrained(folder).float().eval(), package


def answer_requests(argv) -> int:
    subject, form, _, threads = argv
    torch.set_num_threads(int(threads))
    return serve(FormRuns(subject, form))


def main() -> None:
    run_script(answer_requests)
