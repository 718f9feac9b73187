"""Reads thousands of pickles in one process, with the limits that each would have in a child of its own.

    python -I read_many.py SCRIPTS FILE

FILE is a JSON list of hexadecimal texts. Prints a JSON list: the kind of what each holds, or the exception that its child would die of.
"""

import io
import json
import sys


def main() -> None:
    sys.path.insert(0, sys.argv[1])
    from hubtools.foreign.child import limit
    from hubtools.foreign.pickles import read

    limit(10**9, 300)
    with open(sys.argv[2], encoding="ascii") as file:
        contents = json.load(file)
    found = []
    for content in contents:
        try:
            found.append(read(io.BytesIO(bytes.fromhex(content)))[0])
        except Exception as error:  # noqa: BLE001 - a child's end, whatever its cause, is a refusal
            found.append(type(error).__name__)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
