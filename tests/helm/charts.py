"""tests/helm/charts.py: renders the chart with Helm's own engine (helm-python-sdk, offline), for the tests here.

    docs = render("cpu")     # the objects, as dictionaries, hooks included
"""
import functools
import json
import pathlib
import re
import shutil
import tempfile

import helm_python as helm
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "helm/fathom"
HERE = pathlib.Path(__file__).resolve().parent
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
RELEASE, NAMESPACE = "chat", "llm"


def _file(path):
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}


# Name of a rendering -> its values. The examples are what users copy; tests/helm/values has the rest.
CASES = {"default": {}}
for _folder in (CHART / "examples", HERE / "values"):
    CASES.update({path.stem: _file(path) for path in sorted(_folder.glob("*.yaml"))})


@functools.cache
def chart(app_version=None):
    """The chart; with app_version, a copy that has this one, for templates that wait for a later version."""
    if app_version is None:
        return helm.Chart.load(CHART)
    folder = pathlib.Path(tempfile.mkdtemp()) / "fathom"
    shutil.copytree(CHART, folder)
    path = folder / "Chart.yaml"
    path.write_text(re.sub(r"^appVersion: .*$", f'appVersion: "{app_version}"', path.read_text(), flags=re.M))
    loaded = helm.Chart.load(folder)
    shutil.rmtree(folder.parent)
    return loaded


def version_of(case):
    """The case `lease` needs the version that has a Lease."""
    return "0.3.0" if case == "lease" else None


def templates(case=None, values=None, release=RELEASE):
    """{path of a template: rendered text}, of a case or of values, as `helm template` does: schema first."""
    values = CASES[case] if values is None else values
    loaded = chart(version_of(case))
    loaded.validate_schema(values)
    out = loaded.render(values, name=release, namespace=NAMESPACE)
    return {path.removeprefix("fathom/templates/"): text for path, text in sorted(out.items()) if text.strip()}


def objects(texts):
    return [doc for path, text in texts.items() if path != "NOTES.txt" for doc in yaml.load_all(text, LOADER) if doc]


def render(case=None, values=None):
    return _render(case) if values is None else objects(templates(values=values))


@functools.cache
def _render(case):
    return objects(templates(case))


def find(docs, kind, name):
    """The object of this kind whose name is chat-fathom-NAME."""
    found = [d for d in docs if d["kind"] == kind and d["metadata"]["name"] == f"{RELEASE}-fathom-{name}"]
    assert len(found) == 1, f"{len(found)} of {kind} {name}"
    return found[0]


def pod_of(doc):
    """The spec of the pods that an object makes; None: it makes none."""
    if doc["kind"] == "Pod":
        return doc["spec"]
    if doc["kind"] == "LeaderWorkerSet":
        return doc["spec"]["leaderWorkerTemplate"]["workerTemplate"]["spec"]
    return doc["spec"]["template"]["spec"] if "template" in doc.get("spec", {}) else None


def labels_of(doc):
    """The labels of the pods that an object makes."""
    if doc["kind"] == "Pod":
        return doc["metadata"]["labels"]
    if doc["kind"] == "LeaderWorkerSet":
        return doc["spec"]["leaderWorkerTemplate"]["workerTemplate"]["metadata"]["labels"]
    return doc["spec"]["template"]["metadata"]["labels"]


def golden(texts):
    """The text that is compared with tests/helm/goldens: all templates; files of other folders are only named."""
    text = "".join(f"=== {path}\n{body.strip()}\n" for path, body in texts.items())
    text = re.sub(r"(?m)^( +\S+\.json): \|\n(?: {4}.*\n|\n)+", r"\1: (the file)\n", text)
    return re.sub(r"(?m)^spec:\n(?:  #.*\n)*  groups:\n(?: {2,}.*\n|\n)+", "spec: (files/alerts.yaml)\n", text)


def refusal(values):
    """The message with which Helm refuses these values; None: it takes them."""
    try:
        templates(values=values)
        return None
    except helm.HelmError as error:
        return str(error)


def lint(values):
    return helm.lint(CHART, values)["messages"]


def schema():
    return json.loads((CHART / "values.schema.json").read_text())
