"""One process of a stranger: runs the case it is given and prints what it found as JSON. Sees no repository.

python probe_other_hands.py CASE ARGUMENTS...
"""

import importlib
import json
import multiprocessing
import os
import sys
import time

import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoModel

torch.set_num_threads(1)
transformers.logging.set_verbosity_error()


def load(name, **kwargs):
    return AutoModel.from_pretrained(name, trust_remote_code=True, **kwargs)


def has_weights_of(model, folder):
    """Whether every tensor of the model is the file's, bit for bit. A file may hold a head and prefix its backbone."""
    saved = load_file(os.path.join(folder, "model.safetensors"))
    prefix = f"{model.base_model_prefix}."
    return all(
        torch.equal(tensor, saved.get(key, saved.get(prefix + key))) for key, tensor in model.state_dict().items()
    )


def listing(folder):
    return sorted((name, os.stat(os.path.join(folder, name)).st_mtime_ns) for name in os.listdir(folder))


def paths(*folders):
    """Loads each folder twice: does it have its weights, and is the folder as it was?"""
    found = {}
    for folder in folders:
        before = listing(folder)
        found[folder] = all(has_weights_of(load(folder), folder) for _ in range(2)) and listing(folder) == before
    return found


def vendored(parent, module, class_name, folder, saved):
    """Uses a package under a name of the vendor's, without remote code, and saves it as a Hub folder that loads again."""
    sys.path.insert(0, parent)
    model_class = getattr(importlib.import_module(module), class_name)
    model = model_class.from_pretrained(folder)
    model.save_pretrained(saved)
    again = load(saved)
    return {
        "module": model_class.__module__,
        "weights": has_weights_of(model, folder),
        "remote module": type(again).__module__,
        "again": all(torch.equal(tensor, model.state_dict()[key]) for key, tensor in again.state_dict().items()),
        "repository seen": sorted(
            name for name in sys.modules if name.split(".")[0] in ("llavavit", "byteformer", "hubtools")
        ),
    }


def revisions(repo_id, *pairs):
    """Two revisions side by side, the first used again after the second was loaded."""
    models = {revision: load(repo_id, revision=revision) for revision in pairs[::2]}
    return {
        revision: [sys.modules[type(model).__module__].REVISION, has_weights_of(model, folder)]
        for (revision, model), folder in zip(models.items(), pairs[1::2])
    }


def local_only(repo_id, folder):
    """Refused with an empty cache, and served from the cache once it was loaded."""
    try:
        load(repo_id, local_files_only=True)
        refused = False
    except OSError:
        refused = True
    load(repo_id)
    return {"refused before": refused, "weights": has_weights_of(load(repo_id, local_files_only=True), folder)}


def _load_at_once(barrier, results, name, folder):
    barrier.wait()
    try:
        try:
            model = load(name)
        except (AttributeError, ImportError, SyntaxError) as error:
            # transformers copies code into its cache without a lock, and a process may import half a file. That is an
            # error, never another model, and gone at the second call.
            if "transformers_modules" not in str(error):
                raise
            time.sleep(1)
            model = load(name)
        results.put("ok" if has_weights_of(model, folder) else "other weights")
    except Exception as error:  # a child must report whatever it dies of
        results.put(f"{type(error).__name__}: {error}")


def at_once(count, name, folder, warm):
    """`count` processes load the same name at the same moment into one empty cache."""
    load(warm)  # what transformers itself imports late; another folder, so that the cache stays empty for `name`
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(int(count)), context.Queue()
    processes = [
        context.Process(target=_load_at_once, args=(barrier, results, name, folder)) for _ in range(int(count))
    ]
    for process in processes:
        process.start()
    found = [results.get(timeout=240) for _ in processes]
    for process in processes:
        process.join()
    return found


CASES = {case.__name__: case for case in (paths, vendored, revisions, local_only, at_once)}

if __name__ == "__main__":
    print(json.dumps(CASES[sys.argv[1]](*sys.argv[2:])))
