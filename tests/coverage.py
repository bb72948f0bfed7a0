#!/usr/bin/env python3
"""Which branches of the process, the registry and the bucket the tests take.

    tests/coverage.py [--min 95]

Runs the unit tests, the promises and 300 cases of the model in a build that counts (by rustc's nightly: no other counts
branches), and reads the counts with llvm-profdata and llvm-cov of LLVM 19 (Debian's llvm-19) or newer. A branch has two
ways, and generic code is one, whatever it is used with. Left out are tests, and what asks whether a bug is planted: no
release has it. Says which ways nobody went, and fails where too few were gone.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "target" / "coverage"
LAYERS = [ROOT / "src" / layer for layer in ("process", "registry", "bucket")]
TESTS = [["--lib"], ["--test", "it"], ["--test", "model"]]
ARGUMENTS = {"model": ["300"]}
COUNTING = {"RUSTFLAGS": "-Cinstrument-coverage -Zcoverage-options=branch"}
NO_CODE_OF_A_RELEASE = "strikes("


def llvm(tool):
    """The newest there is."""
    found = [name for version in range(30, 18, -1) if (name := shutil.which(f"{tool}-{version}"))]
    if not found:
        sys.exit(f"{tool} of LLVM 19 or newer is not there: Debian has it in llvm-19")
    return found[0]


def run(words, **env):
    return subprocess.run(words, cwd=ROOT, env=os.environ | env, check=True, text=True, stdout=subprocess.PIPE).stdout


def binaries():
    """Each test binary by its name."""
    words = ["cargo", "+nightly", "test", "--no-run", "--message-format=json", "--target-dir", TARGET, *sum(TESTS, [])]
    # Build scripts count too, and leave it somewhere.
    built = run(words, **COUNTING, LLVM_PROFILE_FILE=str(TARGET / "build.profraw"))
    messages = map(json.loads, built.splitlines())
    return {m["target"]["name"]: m["executable"] for m in messages if m.get("profile", {}).get("test") and m["executable"]}


def counted(binaries):
    """What llvm-cov exports of the layers' files."""
    counts, profiles = TARGET / "counts", []
    shutil.rmtree(counts, ignore_errors=True)
    for name, binary in binaries.items():
        # Those of the processes that it starts are not asked: some are killed while they write.
        env = os.environ | {"LLVM_PROFILE_FILE": f"{counts}/{name}-%p"}
        words = [binary, *ARGUMENTS.get(name, [])]
        with subprocess.Popen(words, cwd=ROOT, env=env, stdout=subprocess.DEVNULL) as process:
            pass
        if process.returncode:
            sys.exit(f"{name} failed")
        profiles.append(f"{counts}/{name}-{process.pid}")
    merged = TARGET / "merged.profdata"
    run([llvm("llvm-profdata"), "merge", "-sparse", *profiles, "-o", merged])
    shutil.rmtree(counts)
    first, *others = binaries.values()
    objects = sum((["-object", other] for other in others), [])
    files = run([llvm("llvm-cov"), "export", first, *objects, f"-instr-profile={merged}", *LAYERS])
    return json.loads(files)["data"][0]["files"]


def ways(file):
    """(place, line of code, how often it was so, how often not) of each branch."""
    path = Path(file["filename"])
    lines = path.read_text().splitlines()
    end = lines.index("#[cfg(test)]") if "#[cfg(test)]" in lines and "mod tests {" in lines else len(lines)
    branches = defaultdict(lambda: [0, 0])
    for line, column, _, _, true, false, *_ in file["branches"]:
        branches[line, column][0] += true
        branches[line, column][1] += false
    for (line, column), (true, false) in sorted(branches.items()):
        code = lines[line - 1].strip()
        if line <= end and NO_CODE_OF_A_RELEASE not in code:
            yield f"{path.relative_to(ROOT)}:{line}:{column}", code, true, false


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--min", type=int, default=95, help="of a hundred ways that there are")
    args = parser.parse_args()
    there, gone = Counter(), Counter()
    for file in counted(binaries()):
        path = Path(file["filename"])
        layer = next(layer.name for layer in LAYERS if layer in path.parents)
        if "tests" in path.relative_to(ROOT).with_suffix("").parts:
            continue
        for place, code, true, false in ways(file):
            there[layer] += 2
            gone[layer] += (true > 0) + (false > 0)
            for way, count in (("never so", true), ("always so", false)):
                if not count:
                    print(f"{way:>9}  {place}  {code}")
    for layer in there:
        print(f"{layer:>9}  {gone[layer]} of {there[layer]}: {gone[layer] / there[layer]:.1%}")
    share = gone.total() / there.total()
    print(f"{'all':>9}  {gone.total()} of {there.total()}: {share:.1%}")
    if share * 100 < args.min:
        sys.exit(f"{args.min} % are asked for")


if __name__ == "__main__":
    main()
