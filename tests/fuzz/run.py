"""Looks for inputs that a decoder does not stand, with atheris: `python tests/fuzz/run.py [NAME ...] [--seconds N]`.

What is found on the way stays in build/fuzz/NAME/, where the next run begins. An input at fault is put into build/fuzz/
and its path told. Each decoder has a process of its own, as libFuzzer ends it: that is `run.py NAME -- FLAG ...`, with
flags of libFuzzer (https://llvm.org/docs/LibFuzzer.html#options).
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
CORPUS = TESTS / "fuzz" / "corpus"
FOUND = TESTS.parent / "build" / "fuzz"

INSTRUMENTED = ["grpclb_core", "dns", "ipaddress", "json", "tomllib"]
LONGEST_S = 10  # for one input; more is a hang
MOST_MEMORY_MB = 2048
MOST_WORDS = 500  # of a dictionary
LARGEST_KEPT = 1_000  # bytes of an input that goes into the saved corpus


def main() -> int:
    """Fuzz the decoders that are named, or all of them, one after the other; gives how many are at fault."""
    known = sorted(path.name for path in CORPUS.iterdir())
    parser = argparse.ArgumentParser(description="Look for inputs that a decoder does not stand.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(known)} (default: all)")
    parser.add_argument("--seconds", type=int, default=60, help="for each (default: %(default)s)")
    parser.add_argument("--keep", action="store_true", help="add what reaches new code to the corpus, and do no more")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(known))
    if unknown:
        parser.error(f"no decoder is called {', '.join(unknown)}; known are {', '.join(known)}")
    seek = [f"-max_total_time={options.seconds}", "-print_final_stats=1"]
    keep = ["-merge=1", "-use_counters=0", f"-max_len={LARGEST_KEPT}"]  # new code, not new counts of the same
    flags = keep if options.keep else seek
    faulty = []
    for name in options.names or known:
        print("==", name, flush=True)
        if subprocess.call([sys.executable, __file__, name, "--", *flags]):
            faulty.append(name)
        for path in CORPUS.joinpath(name).glob("?" * 40):  # libFuzzer names them by their SHA-1
            path.rename(path.with_name(f"found-{path.name[:8]}"))
    print("at fault:", ", ".join(faulty) or "none")
    return len(faulty)


def fuzz(name: str, flags: list[str]) -> None:
    """Fuzz one decoder; does not return."""
    import atheris

    sys.path.insert(0, str(TESTS))
    with atheris.instrument_imports(include=INSTRUMENTED):
        from fuzz.targets import DECODERS, check
    found, words = FOUND / name, FOUND / f"{name}.words"
    found.mkdir(parents=True, exist_ok=True)
    words.write_text("".join(f'"{word}"\n' for word in words_of(CORPUS / name)))
    folders = [str(found), str(CORPUS / name)]  # the first is written to
    if any(flag.startswith("-merge=") for flag in flags):
        folders.reverse()
    limits = [f"-timeout={LONGEST_S}", f"-rss_limit_mb={MOST_MEMORY_MB}"]
    command = f"{sys.executable} {__file__} {name} --"  # how libFuzzer starts itself, to merge
    arguments = [command, *limits, f"-artifact_prefix={FOUND}/{name}-", f"-dict={words}", *flags, *folders]
    atheris.Setup(arguments, lambda data: check(DECODERS[name], data))
    atheris.Fuzz()


def words_of(folder: Path) -> list[str]:
    """Give the words of a corpus, for libFuzzer to put together anew."""
    texts = [path.read_bytes() for path in folder.iterdir()]
    found = {word.decode() for text in texts for word in re.findall(rb"[A-Za-z0-9_.:/-]{2,40}", text)}
    return sorted(found)[:MOST_WORDS]


if __name__ == "__main__":
    if "--" in sys.argv:
        fuzz(sys.argv[1], sys.argv[3:])
    sys.exit(main())
