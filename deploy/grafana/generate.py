#!/usr/bin/env python3
"""Writes the dashboards *.json of this folder from dashboards.py: python3 deploy/grafana/generate.py. Needs only Python 3.9.

The JSON is Grafana's dashboard model, schema version 39 (Grafana 11; later versions convert it when they load it). A test
compares the files with what this script makes.
"""
import json
import pathlib

import dashboards

FOLDER = pathlib.Path(__file__).resolve().parent
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24
HEIGHT = {"stat": 4, "row": 1}
TAGS = ["fathom"]


def variable(name, label, metric):
    """A choice of values of a target's label; All also takes targets that have no such label."""
    ask = f"label_values({metric}, {name})"
    return {
        "type": "query", "name": name, "label": label, "datasource": SOURCE,
        "query": {"query": ask, "refId": "PrometheusVariableQueryEditor-VariableQuery"},
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]}, "includeAll": True, "allValue": ".*",
        "multi": True, "refresh": 2, "sort": 1, "hide": 0, "skipUrlSync": False, "options": [],
    }


def target(index, expression, legend, kind):
    made = {"refId": chr(ord("A") + index), "datasource": SOURCE, "expr": expression.replace("{}", dashboards.SELECTOR),
            "legendFormat": legend, "range": kind != "stat", "instant": kind == "stat"}
    if kind == "heatmap":
        made["format"] = "heatmap"
    return made


def thresholds(steps):
    """(value, color) from low to high; the first one has no lower end."""
    return {"mode": "absolute", "steps": [{"color": color, "value": value} for value, color in steps]}


def field_config(panel):
    defaults = {"unit": panel.unit, "thresholds": thresholds(panel.thresholds or [(None, "green")])}
    if panel.kind == "timeseries":
        defaults["min"] = 0
        defaults["color"] = {"mode": "palette-classic"}
        defaults["custom"] = {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 30 if panel.stacked else 5,
                              "showPoints": "never", "spanNulls": False,
                              "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"}}
    elif panel.kind == "stat":
        defaults["color"] = {"mode": "thresholds"}
    return {"defaults": defaults, "overrides": []}


def options(kind):
    if kind == "stat":
        return {"colorMode": "value", "graphMode": "none", "justifyMode": "auto", "orientation": "auto", "textMode": "auto",
                "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}
    if kind == "heatmap":
        return {"calculate": False, "cellGap": 1, "yAxis": {"unit": "s"}, "color": {"mode": "scheme", "scheme": "Oranges"}}
    return {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"}}


def panels_of(rows):
    """Lays the panels of each row side by side, each row under the one before."""
    made, y = [], 0
    for title, panels in rows:
        if title:
            made.append({"type": "row", "id": len(made) + 1, "title": title, "collapsed": False, "panels": [],
                         "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": HEIGHT["row"]}})
            y += HEIGHT["row"]
        width = WIDTH // len(panels)
        height = max(HEIGHT.get(p.kind, 8) for p in panels)
        for column, panel in enumerate(panels):
            made.append({
                "type": panel.kind, "id": len(made) + 1, "title": panel.title, "description": panel.description,
                "datasource": SOURCE, "gridPos": {"x": column * width, "y": y, "w": width, "h": height},
                "targets": [target(i, e, legend, panel.kind) for i, (e, legend) in enumerate(panel.targets)],
                "fieldConfig": field_config(panel), "options": options(panel.kind)})
        y += height
    return made


def dashboard(name, title, description, rows):
    return {
        "uid": f"fathom-{name}", "title": f"Fathom / {title}", "description": description, "tags": TAGS, "schemaVersion": 39,
        "version": 1, "editable": True, "graphTooltip": 1, "timezone": "browser", "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"}, "fiscalYearStartMonth": 0, "annotations": {"list": []},
        "links": [{"type": "dashboards", "title": "Fathom", "tags": TAGS, "asDropdown": True, "includeVars": True,
                   "keepTime": True, "targetBlank": False, "icon": "external link", "tooltip": "", "url": ""}],
        "templating": {"list": [
            {"type": "datasource", "name": "datasource", "label": "Prometheus", "query": "prometheus", "hide": 0,
             "multi": False, "includeAll": False, "refresh": 1, "regex": "", "skipUrlSync": False, "options": [],
             "current": {}},
            variable("namespace", "Namespace", "fathom_router_build_info"),
            variable("model", "Model", 'fathom_router_build_info{namespace=~"$namespace"}'),
        ]},
        "panels": panels_of(rows),
    }


def files():
    """The text of each file by its name."""
    return {f"{name}.json": json.dumps(dashboard(name, *parts), indent=1) + "\n" for name, parts in dashboards.ALL.items()}


if __name__ == "__main__":
    for file, text in files().items():
        (FOLDER / file).write_text(text)
        print(f"deploy/grafana/{file}")
