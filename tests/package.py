#!/usr/bin/env python3
"""What `deploy/package` has made is what it says: the list that is in the binary, the SBOM, and the Debian package.

    deploy/package && tests/package.py target/dist/pail
"""

import hashlib
import json
import re
import subprocess
import tempfile
import zlib
from pathlib import Path

from world import Server, Wrong, end_as_told, pail_to_test, require

ROOT = Path(__file__).resolve().parent.parent
# What is asked of a binary first when a hole is found somewhere.
KNOWN = ("h2", "hyper", "rustls", "ring", "tokio", "tonic")


def locked():
    """The versions in Cargo.lock."""
    text = (ROOT / "Cargo.lock").read_text()
    return set(re.findall(r'^name = "([^"]+)"\nversion = "([^"]+)"', text, re.M))


def the_binary_knows_what_is_in_it(pail, folder):
    section = Path(folder, "section")
    subprocess.run(["objcopy", "--dump-section", f".dep-v0={section}", pail, f"{folder}/copy"], check=True)
    packages = json.loads(zlib.decompress(section.read_bytes()))["packages"]
    there = {(package["name"], package["version"]) for package in packages if package.get("kind") != "build"}
    require(there <= locked(), f"not in Cargo.lock: {there - locked()}")
    names = {name for name, _ in there}
    require(names >= set(KNOWN), f"it does not know of {set(KNOWN) - names}")
    return there


def the_sbom_says_the_same(dist, there):
    sbom = json.loads((dist / "pail.cdx.json").read_text())
    require(sbom["bomFormat"] == "CycloneDX" and sbom["metadata"]["component"]["name"] == "pail", "it is no SBOM of pail's")
    told = {(component["name"], component["version"]) for component in sbom["components"]}
    missing = {package for package in there - told if package[0] != "pail"}
    require(not missing, f"the SBOM does not tell of {missing}")
    licences = [component["name"] for component in sbom["components"] if not component.get("licenses")]
    require(not licences, f"without a licence: {licences}")
    return len(told)


def the_package_is_whole(dist, folder):
    (package,) = dist.glob("*.deb")
    root = Path(folder, "root")
    subprocess.run(["dpkg-deb", "-x", package, root], check=True)
    control = subprocess.run(["dpkg-deb", "-f", package], capture_output=True, text=True, check=True).stdout
    require("Package: pail\n" in control and "Depends: libc6" in control, control)
    conffiles = subprocess.run(["dpkg-deb", "--ctrl-tarfile", package], capture_output=True, check=True).stdout
    require(b"/etc/default/pail" in conffiles, "what an administrator changes is to be left alone")
    units = root / "usr/lib/systemd/system"
    for unit in ("pail.service", "pail.socket"):
        require((units / unit).read_text() == (ROOT / "deploy/systemd" / unit).read_text(), f"{unit} is another")
    for path in ("etc/default/pail", "usr/share/bash-completion/completions/pail", "usr/share/doc/pail/OPERATIONS.md",
                 "usr/share/doc/pail/copyright", "usr/share/doc/pail/prometheus/alerts.yaml", "usr/share/pail/proto/pail/v1/pail.proto"):
        require((root / path).stat().st_size > 0, f"{path} is empty")
    for setting in re.findall(r"^# PAIL_([A-Z_]+)=", (root / "etc/default/pail").read_text(), re.M):
        require(f"| `{setting.lower().replace('_', '-')}`" in (ROOT / "OPERATIONS.md").read_text() or setting in ("CONFIG", "TLS_KEY"), f"there is no setting {setting}")
    with Server(root / "usr/bin/pail") as server:
        server.do("create", "b")
        require(server.has("b"), "what is installed does not work")
    return len(list(root.rglob("*")))


def the_hashes_are_right(dist):
    lines = (dist / "SHA256SUMS").read_text().splitlines()
    for line in lines:
        digest, name = line.split("  ")
        require(hashlib.sha256((dist / name).read_bytes()).hexdigest() == digest, f"{name} has another hash")
    require(len(lines) == 3, f"{lines}")


def main():
    pail = pail_to_test(__doc__, {})
    dist = pail.parent
    if not (dist / "SHA256SUMS").is_file():
        raise Wrong(f"{dist} is not what deploy/package makes")
    with tempfile.TemporaryDirectory(prefix="pail-package-") as folder:
        there = the_binary_knows_what_is_in_it(pail, folder)
        told = the_sbom_says_the_same(dist, there)
        files = the_package_is_whole(dist, folder)
    the_hashes_are_right(dist)
    print(f"{len(there)} crates are in the binary, and it says so; {told} in the SBOM; {files} paths in the package, which works")


if __name__ == "__main__":
    end_as_told(main)
