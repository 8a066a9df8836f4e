package bootloader

import (
	"strconv"
	"strings"
)

// grubMenu is what a grub.cfg of NixOS says of its entries.
type grubMenu struct {
	entries []grubEntry
	// byDefault is the number or the title of the entry that is booted when none is asked for.
	byDefault string
	// superusers says that entries are for users with a password, unless they say otherwise.
	superusers bool
}

// grubEntry is one entry that boots a NixOS.
type grubEntry struct {
	// path is what GRUB calls it: the titles of the submenus around it and its own, separated by ">".
	path string
	// number counts it in the menu itself, from 0; empty in a submenu.
	number       string
	toplevel     string
	unrestricted bool // it is for everybody, and so are all submenus around it
}

// grubBlock is an open brace of a grub.cfg.
type grubBlock struct {
	menu         bool // a submenu
	entry        *grubEntry
	path         string
	unrestricted bool
	items        int // entries and submenus in it so far
}

// readGrubMenu reads a grub.cfg as install-grub.pl writes it, where each entry and each submenu begins on a line of its own
// and ends with a brace on one.
func readGrubMenu(text string) grubMenu {
	var menu grubMenu
	open := []*grubBlock{{menu: true, unrestricted: true}}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		inner := open[len(open)-1]
		switch word, rest, _ := strings.Cut(line, " "); {
		case line == "}":
			if inner.entry != nil && inner.entry.toplevel != "" {
				menu.entries = append(menu.entries, *inner.entry)
			}
			if len(open) > 1 {
				open = open[:len(open)-1]
			}
		case (word == "menuentry" || word == "submenu") && strings.HasSuffix(line, "{"):
			open = append(open, openGrubBlock(inner, word == "submenu", rest, len(open) == 1))
		case strings.HasSuffix(line, "{"):
			open = append(open, &grubBlock{})
		case inner.entry != nil:
			if toplevel := initOf(line); toplevel != "" {
				inner.entry.toplevel = toplevel
			}
		case strings.HasPrefix(line, "set superusers="):
			menu.superusers = true
		case strings.HasPrefix(line, "set default="):
			// The last one counts: those before are for an entry that was asked for.
			menu.byDefault = strings.Trim(strings.TrimPrefix(line, "set default="), `"`)
		}
	}
	return menu
}

func openGrubBlock(around *grubBlock, submenu bool, rest string, top bool) *grubBlock {
	title, options := grubTitle(rest)
	number := strconv.Itoa(around.items)
	around.items++
	name := strings.ReplaceAll(title, ">", ">>")
	if strings.HasPrefix(name, ">") {
		// GRUB takes the separator before it for the first half of an escaped one.
		name = number
	}
	b := &grubBlock{menu: submenu, path: name, unrestricted: around.unrestricted && strings.Contains(options, "--unrestricted")}
	if !top {
		b.path = around.path + ">" + name
		number = ""
	}
	if !submenu {
		b.entry = &grubEntry{path: b.path, number: number, unrestricted: b.unrestricted}
	}
	return b
}

// grubTitle cuts the quoted title off the rest of an entry's or submenu's line.
func grubTitle(rest string) (title, options string) {
	if rest == "" || rest[0] != '"' && rest[0] != '\'' {
		title, options, _ = strings.Cut(rest, " ")
		return title, options
	}
	title, options, _ = strings.Cut(rest[1:], rest[:1])
	return title, options
}
