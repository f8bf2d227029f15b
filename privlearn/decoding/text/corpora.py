"""Text that every machine with CPython has: its reference manual in English, and its own source.

Two domains, so that a change of domain can be played: ``docs`` (the help topics of `pydoc`) and
``code`` (modules of the standard library). A corpus is a dictionary from file name to text, and it
is split **by file**, never by window: text of a held-out file is nowhere in the training part.

The texts differ a little from one version of Python to the next; what must be the same everywhere
(the excerpts that tests read) is shipped with `privlearn.decoding.family`.
"""

from __future__ import annotations

import hashlib
import sysconfig
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

Domain: TypeAlias = Literal["docs", "code"]

#: Modules of the ``code`` domain: plain Python, and present in CPython 3.11 to 3.14.
CODE_FILES = (
    "_collections_abc.py",
    "abc.py",
    "argparse.py",
    "ast.py",
    "bdb.py",
    "bisect.py",
    "calendar.py",
    "cmd.py",
    "codecs.py",
    "collections/__init__.py",
    "configparser.py",
    "contextlib.py",
    "copy.py",
    "csv.py",
    "dataclasses.py",
    "datetime.py",
    "difflib.py",
    "dis.py",
    "doctest.py",
    "enum.py",
    "fileinput.py",
    "fractions.py",
    "ftplib.py",
    "functools.py",
    "getopt.py",
    "gettext.py",
    "glob.py",
    "gzip.py",
    "heapq.py",
    "imaplib.py",
    "inspect.py",
    "ipaddress.py",
    "locale.py",
    "mailbox.py",
    "mimetypes.py",
    "netrc.py",
    "optparse.py",
    "pdb.py",
    "pickle.py",
    "pkgutil.py",
    "plistlib.py",
    "poplib.py",
    "pprint.py",
    "profile.py",
    "queue.py",
    "random.py",
    "sched.py",
    "selectors.py",
    "shelve.py",
    "shlex.py",
    "shutil.py",
    "smtplib.py",
    "socket.py",
    "socketserver.py",
    "statistics.py",
    "string.py",
    "subprocess.py",
    "tarfile.py",
    "tempfile.py",
    "textwrap.py",
    "threading.py",
    "timeit.py",
    "tokenize.py",
    "trace.py",
    "traceback.py",
    "types.py",
    "typing.py",
    "uuid.py",
    "warnings.py",
    "weakref.py",
    "zipfile.py",
)


class Split(NamedTuple):
    """A corpus in two parts, each a dictionary from file name to text."""

    train: dict[str, str]
    held_out: dict[str, str]


def load_corpus(domain: Domain) -> dict[str, str]:
    """The files of a domain, from the running Python.

    Parameters
    ----------
    domain : {"docs", "code"}

    Raises
    ------
    ValueError
        For another domain.
    FileNotFoundError
        If this Python came without the files.

    Examples
    --------
    >>> from privlearn.decoding.text import load_corpus
    >>> "lambda" in load_corpus("docs")["lambda"]
    True
    """
    if domain == "docs":
        from pydoc_data.topics import topics

        return dict(sorted(topics.items()))
    if domain != "code":
        raise ValueError(f"domain: {domain!r}; must be 'docs' or 'code'")
    root = Path(sysconfig.get_path("stdlib"))
    files = {name: root / name for name in CODE_FILES if (root / name).is_file()}
    if len(files) < len(CODE_FILES) // 2:
        raise FileNotFoundError(
            f"{root} holds {len(files)} of {len(CODE_FILES)} modules as source; this Python was "
            "installed without its standard library in readable form"
        )
    return {name: path.read_text("utf-8") for name, path in files.items()}


def is_held_out(name: str, one_in: int = 8) -> bool:
    """Whether a file is held out: decided by a hash of its name alone, the same on every machine.

    Examples
    --------
    >>> from privlearn.decoding.text import is_held_out
    >>> [name for name in ("heapq.py", "queue.py", "shlex.py", "string.py") if is_held_out(name)]
    ['string.py']
    """
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % one_in == 0


def split_by_file(corpus: dict[str, str], one_in: int = 8) -> Split:
    """Hold out about one file in ``one_in``.

    Examples
    --------
    >>> from privlearn.decoding.text import load_corpus, split_by_file
    >>> split = split_by_file(load_corpus("docs"))
    >>> set(split.train) & set(split.held_out)
    set()
    """
    held_out = {name: text for name, text in corpus.items() if is_held_out(name, one_in)}
    return Split({n: t for n, t in corpus.items() if n not in held_out}, held_out)
