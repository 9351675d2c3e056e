#!/bin/sh
# Installs ScanMix with the versions it was tested with. The Dockerfile runs it, and `make dist` in bare environments.
#
#     sh release/install.sh PYTHON WHAT [EXTRAS]      WHAT: a folder or a wheel; EXTRAS: such as timm,onnx
#
# TORCH_INDEX is the index that PyTorch comes from, such as https://download.pytorch.org/whl/cpu; unset: pip's usual one.
set -eu
python=$1 what=$2 extras=${3:-}
constraints=$(dirname "$0")/..
known=$(mktemp)
trap 'rm -f "$known"' EXIT
case ",$extras," in
*,timm,* | *,hf,*) # torchvision and PyTorch must be built alike
    torch="torch torchvision"
    sed '/^torch==/d' "$constraints/constraints.txt" | cat - "$constraints/constraints-timm.txt" > "$known" ;;
*)
    torch=torch
    cat "$constraints/constraints.txt" > "$known" ;;
esac

# What PyTorch needs comes with the second call: its index has not every version of it.
"$python" -m pip install --quiet --no-compile --no-deps --constraint "$known" \
    ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} $torch
"$python" -m pip install --quiet --no-compile --constraint "$known" "$what${extras:+[$extras]}"
"$python" -m pip check
"$python" -m scanmix --version
