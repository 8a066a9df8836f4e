# The nixpkgs that the machine is built from. `make demo` writes its own here, in a copy of this folder. For a machine of yours:
#   fetchTarball { url = "https://github.com/NixOS/nixpkgs/archive/REVISION.tar.gz"; sha256 = "…"; }
throw "pin.nix names no nixpkgs yet: put a path or a fetchTarball with a hash there"
