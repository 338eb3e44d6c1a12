# shellcheck shell=bash
# Sourced by the launch scripts. If --dry-run is the first argument, `run COMMAND...` only prints.
DRY_RUN=
if [[ ${1:-} == --dry-run ]]; then
  DRY_RUN=1
  shift
fi

run() {
  [[ $DRY_RUN ]] || { "$@"; return; }
  local word line=
  for word; do
    [[ $word =~ ^[[:alnum:]_./:=@%+,-]+$ ]] || word=${word@Q}
    line+="$word "
  done
  echo "${line% }"
}
