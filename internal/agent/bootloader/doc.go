// Package bootloader knows the boot loaders that NixOS writes menus for: systemd-boot and GRUB. It tells which of them a machine has,
// what it boots by default and what its entry for a system is, by their files, and has it boot one entry once. It knows of no job:
// when that is done, and what becomes of it, is for others to say.
//
// A [Loader] is one that can do that, and [Find] gives those that are there. One whose next boot could not be forgotten again, as of
// a GRUB that cannot write to its own file system, is none. An entry is named as the boot loader names it. An error says what the menu
// does not have, in words that go on from the boot loader's name.
//
// A [Place] is a file system of its own that a boot loader may read its menu from. A menu that is written where it was not read from
// before, because the file system is gone, boots nothing: [Moved] says so.
package bootloader
