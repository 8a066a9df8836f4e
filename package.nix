# ferry as nixpkgs packages Go programs: pkgs.callPackage ./package.nix { }. The agents for the targets are built first, and are
# embedded in ferry.
{
  lib,
  stdenv,
  buildGoModule,
  installShellFiles,
}:

buildGoModule {
  pname = "ferry";
  version = "0.1.0";

  src = lib.cleanSource ./.;
  # The hash of what "go mod vendor" makes: `go test ./integration/release/` says what it has to be.
  vendorHash = "sha256-2oYgdtQyGWghXMu0mPDxKYYpM01GUBccmKj1d0fd94Q=";

  subPackages = [ "cmd/ferry" ];
  env.CGO_ENABLED = 0;
  ldflags = [
    "-s"
    "-w"
    "-X main.version=0.1.0"
  ];

  nativeBuildInputs = [ installShellFiles ];

  # It runs on the building machine, and builds for each machine that ferry deploys to.
  preBuild = ''
    GOOS= GOARCH= GOARM= go run ./cmd/ferry-agents internal/agent/embedded
  '';

  # The tests need root, systemd, sshd and Nix's own store: `make test`.
  doCheck = false;

  postInstall = lib.optionalString (stdenv.buildPlatform.canExecute stdenv.hostPlatform) ''
    $out/bin/ferry man "$PWD"
    installManPage *.1
    for shell in bash zsh fish; do
      $out/bin/ferry completion $shell >ferry.$shell
    done
    installShellCompletion --cmd ferry --bash ferry.bash --zsh ferry.zsh --fish ferry.fish
  '';

  meta = {
    description = "Deploys NixOS over ssh: builds here, ships differences, switches there and rolls back by itself";
    license = lib.licenses.mit;
    mainProgram = "ferry";
    platforms = lib.platforms.linux ++ lib.platforms.darwin;
  };
}
