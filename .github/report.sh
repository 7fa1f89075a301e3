#!/usr/bin/env bash
# What a change does to metrics and parameters, as Markdown: bash .github/report.sh origin/main
# Works from a bare clone: metrics are in git, so it needs neither data nor a DVC remote.
set -euo pipefail
base=${1:?usage: report.sh BASE-REVISION}

section() { # title, then the command that prints a Markdown table (its two head lines where nothing changed)
  printf '### %s\n\n' "$1"
  shift
  local table
  table=$("$@")
  if [ "$(wc -l <<< "$table")" -gt 2 ]; then printf '%s\n\n' "$table"; else printf 'No change.\n\n'; fi
}

section "Metrics against \`$base\`" dvc metrics diff "$base" HEAD --md
section "Parameters against \`$base\`" dvc params diff "$base" HEAD --md
