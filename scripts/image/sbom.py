"""What is in the image, as SPDX 2.3 in JSON: Debian's packages, Python's, Rust's crates.

Promises: one entry for each package with version, package URL and licence as it states it, related to the image; the document's name and time come from
what is in it, so two builds write the same. A statement that is no SPDX expression goes into the comment. It does not know where the document lies.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from scripts.image.crates import Crate
from scripts.image.debian import Package
from scripts.image.packages import Distribution

__all__ = ["document"]

_ID = re.compile(r"[^A-Za-z0-9.-]")
_EXPRESSION = re.compile(r"[A-Za-z0-9.+-]+(?: (?:AND|OR|WITH) [A-Za-z0-9.+-]+)*")
_PLAIN_WORDS = {
    "MIT License": "MIT",
    "Apache License 2.0": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "BSD": "BSD-3-Clause",
}


def document(
    *,
    name: str,
    version: str,
    created: int,
    toolchain: str,
    debian: Iterable[Package],
    python: Iterable[Distribution],
    rust: Iterable[Crate],
) -> str:
    """Write the document.

    Args:
        name: of what is described.
        version: its version.
        created: the commit's time.
        toolchain: the compiler, as it names itself.
        debian: packages of the system.
        python: packages beside ours.
        rust: crates in our binaries.
    """
    packages = [_package("Image", name, version, f"pkg:oci/{name}@{version}", "Apache-2.0", "")]
    packages += [_of_debian(package) for package in debian]
    packages += [
        _package("Python", one.name, one.version, f"pkg:pypi/{_pypi(one.name)}@{one.version}", one.licence, "")
        for one in python
    ]
    packages += [
        _package("Crate", one.name, one.version, f"pkg:cargo/{one.name}@{one.version}", one.licence, one.checksum)
        for one in rust
    ]
    top, *others = [package["SPDXID"] for package in packages]
    content = hashlib.sha256(json.dumps(packages, sort_keys=True).encode()).hexdigest()
    described: dict[str, Any] = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"{name}-{version}",
        "documentNamespace": f"urn:longshore:sbom:{version}:{content}",
        "creationInfo": {
            "created": datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "creators": ["Tool: longshore-image"],
            "comment": f"compiled by {toolchain}",
        },
        "packages": packages,
        "relationships": [
            {"spdxElementId": "SPDXRef-DOCUMENT", "relatedSpdxElement": top, "relationshipType": "DESCRIBES"},
            *({"spdxElementId": top, "relatedSpdxElement": one, "relationshipType": "CONTAINS"} for one in others),
        ],
    }
    return json.dumps(described, indent=1, sort_keys=True) + "\n"


def _of_debian(package: Package) -> dict[str, Any]:
    pin = package.pin
    fields = dict(line.split(": ", 1) for line in package.control.splitlines() if re.match(r"[A-Z][A-Za-z-]*: ", line))
    purl = (
        f"pkg:deb/debian/{pin.name}@{pin.version.replace(':', '%3A').replace('+', '%2B')}?arch={fields['Architecture']}"
    )
    made = _package("Debian", pin.name, pin.version, purl, "NOASSERTION", pin.sha256)
    made["licenseComments"] = f"/usr/share/doc/{pin.name}/copyright in the image"
    # What vulnerabilities are filed under.
    made["sourceInfo"] = f"built from source package {fields.get('Source', pin.name)}"
    return made


def _package(kind: str, name: str, version: str, purl: str, licence: str, sha256: str) -> dict[str, Any]:
    stated = _PLAIN_WORDS.get(licence, licence)
    is_expression = _EXPRESSION.fullmatch(stated.replace("(", "").replace(")", "")) is not None
    made: dict[str, Any] = {
        "SPDXID": f"SPDXRef-{kind}-{_ID.sub('-', name)}-{_ID.sub('-', version)}",
        "name": name,
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": stated if is_expression else "NOASSERTION",
        "copyrightText": "NOASSERTION",
        "externalRefs": [
            {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl},
        ],
    }
    if not is_expression:
        made["licenseComments"] = f"the package states: {licence}"
    if sha256:
        made["checksums"] = [{"algorithm": "SHA256", "checksumValue": sha256}]
    return made


def _pypi(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
