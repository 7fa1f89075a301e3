#!/usr/bin/env bash
# What a change does to metrics and parameters, as Markdown: bash .github/report.sh origin/main
# Works from a bare clone: metrics are in git, so it needs neither data nor a DVC remote.
set -euo pipefail
base=${1:?usage: report.sh BASE-REVISION}

for kind in metrics params; do
  printf '### %s against `%s`\n\n' "$([ $kind = metrics ] && echo Metrics || echo Parameters)" "$base"
  dvc "$kind" diff "$base" HEAD --json | python3 .github/diff_table.py
done
