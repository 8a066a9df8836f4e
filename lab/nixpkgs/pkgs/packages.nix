# The packages. All programs are those of one statically linked busybox, split up under the names that nixpkgs has them in, so
# that a system is made of many store paths.
{ lib, pkgs }:

let
  inherit (pkgs.stdenv) mkDerivation hostBootstrap;

  version = lib.fileContents "${hostBootstrap}/version";

  # A package with links to some of busybox's programs.
  programs = pname: names: mkDerivation {
    inherit pname version;
    busybox = pkgs.busybox;
    buildCommand = ''
      mkdir -p $out/bin
      cd $out/bin
      ln -s ${lib.concatMapStringsSep " " (name: "${pkgs.busybox}/bin/${name}") names} .
    '';
    meta.mainProgram = builtins.head names;
  };
in
{
  busybox = mkDerivation {
    pname = "busybox";
    inherit version;
    buildCommand = ''
      mkdir -p $out
      cp -a ${hostBootstrap} $out/bin
      chmod u+w $out/bin
      rm $out/bin/version
    '';
    meta.mainProgram = "busybox";
  };

  # sh is busybox itself, which works as a builder and as an interpreter. busybox knows no program called bash, hence the script.
  bash = mkDerivation {
    pname = "bash";
    inherit version;
    buildCommand = ''
      mkdir -p $out/bin
      ln -s ${pkgs.busybox}/bin/sh ${pkgs.busybox}/bin/ash $out/bin/
      printf '#!%s\nexec %s "$@"\n' ${pkgs.busybox}/bin/sh ${pkgs.busybox}/bin/sh >$out/bin/bash
      chmod +x $out/bin/bash
    '';
    meta.mainProgram = "bash";
    passthru.shellPath = "/bin/bash";
  };
  bashInteractive = pkgs.bash;

  coreutils = programs "coreutils" [
    "[" "base64" "basename" "cat" "chgrp" "chmod" "chown" "chroot" "cp" "cut" "date" "dd" "df" "dirname" "du" "echo" "env"
    "expr" "false" "fold" "groups" "head" "hostid" "id" "install" "link" "ln" "logname" "ls" "md5sum" "mkdir" "mkfifo" "mknod"
    "mktemp" "mv" "nice" "nl" "nohup" "nproc" "od" "paste" "printf" "pwd" "readlink" "realpath" "rm" "rmdir" "seq" "sha1sum"
    "sha256sum" "sha512sum" "shred" "shuf" "sleep" "sort" "stat" "stty" "sync" "tac" "tail" "tee" "test" "timeout" "touch" "tr"
    "true" "truncate" "tty" "uname" "uniq" "unlink" "wc" "who" "whoami" "yes"
  ];
  findutils = programs "findutils" [ "find" "xargs" ];
  diffutils = programs "diffutils" [ "diff" "cmp" ];
  gnugrep = programs "gnugrep" [ "grep" "egrep" "fgrep" ];
  gnused = programs "gnused" [ "sed" ];
  gawk = programs "gawk" [ "awk" ];
  gnutar = programs "gnutar" [ "tar" ];
  gzip = programs "gzip" [ "gzip" "gunzip" "zcat" ];
  less = programs "less" [ "less" ];
  procps = programs "procps" [ "ps" "free" "kill" "pidof" "sysctl" "top" "uptime" "watch" ];
  util-linux = programs "util-linux" [ "dmesg" "getopt" "hexdump" "logger" "mount" "more" "nsenter" "setsid" "umount" ];
  iproute2 = programs "iproute2" [ "ip" ];
  inetutils = programs "inetutils" [ "hostname" "ifconfig" "ping" "telnet" "traceroute" ];
  wget = programs "wget" [ "wget" ];
  vim = programs "vim" [ "vi" ];
  which = programs "which" [ "which" ];

  # A web server: tiny-httpd -f -p PORT -h FOLDER.
  tiny-httpd = mkDerivation {
    pname = "tiny-httpd";
    inherit version;
    buildCommand = ''
      mkdir -p $out/bin
      printf '#!%s\nexec %s "$@"\n' ${pkgs.bash}/bin/sh ${pkgs.busybox}/bin/httpd >$out/bin/tiny-httpd
      chmod +x $out/bin/tiny-httpd
    '';
    meta.mainProgram = "tiny-httpd";
  };

  hello = mkDerivation {
    pname = "hello";
    version = "2.12.1";
    buildCommand = ''
      mkdir -p $out/bin
      printf '#!%s\necho "Hello, world!"\n' ${pkgs.bash}/bin/sh >$out/bin/hello
      chmod +x $out/bin/hello
    '';
    meta.mainProgram = "hello";
  };

  # What `assemble` builds from the folder `switch`. It is fetched by its hash, and only for a system that has it.
  switch-to-configuration-ng = builtins.fetchTarball ({
    name = "switch-to-configuration-ng-0.1.0";
  } // (import ./switch-programs.nix).${pkgs.stdenv.hostPlatform.system});

  # The target's own.
  perl = mkDerivation {
    pname = "perl";
    version = "5.36.0";
    buildCommand = ''
      mkdir -p $out/bin
      ln -s /usr/bin/perl $out/bin/
    '';
    meta.mainProgram = "perl";
  };

  # The target's own systemd, under the names by which configurations refer to it.
  systemd = mkDerivation {
    pname = "systemd";
    version = "255";
    units = ./systemd-units;
    userUnits = ./systemd-user-units;
    buildCommand = ''
      mkdir -p $out/bin $out/lib/systemd $out/example/systemd
      cp -r $units $out/example/systemd/system
      cp -r $userUnits $out/example/systemd/user
      ln -s /usr/lib/systemd/systemd $out/lib/systemd/
      cd $out/bin
      ln -s /usr/bin/systemctl /usr/bin/journalctl /usr/bin/systemd-run /usr/bin/systemd-tmpfiles .
    '';
    meta.mainProgram = "systemctl";
  };
}
