# What update-users-groups makes of users and groups. It reads work/users, groups_file and work/old-NAME, and writes
# work/new-NAME, for the files NAME of /etc and /var/lib/nixos.
#
# As in NixOS: who was declared (declarative-users) and is no longer goes; who is there keeps number and, where users are
# mutable, password; whoever is made anew has the declared password or "!"; members that were added by hand stay, unless they
# are declared users. Other than in NixOS, root and what the distribution brings are left alone.

function lines_of(name, into,    n, line, file) {
	file = work "/" name
	while ((getline line < file) > 0) into[++n] = line
	close(file)
	return n + 0
}

# names reads a list of names with blanks between them into a set.
function names(name, into,    all, n, i, words) {
	n = lines_of("old-" name, all)
	if (n == 0) return
	n = split(all[1], words, " ")
	for (i = 1; i <= n; i++) into[words[i]] = 1
}

# numbers reads a map of JSON, whose names have nothing that would be escaped.
function numbers(name, into, used,    all, n, i, text, pairs, pair) {
	n = lines_of("old-" name, all)
	for (i = 1; i <= n; i++) text = text all[i]
	gsub(/[{}" ]/, "", text)
	n = split(text, pairs, ",")
	for (i = 1; i <= n; i++) {
		split(pairs[i], pair, ":")
		into[pair[1]] = pair[2] + 0
		used[pair[2] + 0] = 1
	}
}

function sorted_keys(set, into,    n, i, j, key, held) {
	for (key in set) {
		into[++n] = key
		for (i = n; i > 1 && into[i] < into[i - 1]; i--) {
			held = into[i]; into[i] = into[i - 1]; into[i - 1] = held
		}
	}
	return n + 0
}

function put_numbers(name, map,    n, i, keys, text) {
	n = sorted_keys(map, keys)
	for (i = 1; i <= n; i++) text = text (i > 1 ? "," : "") "\"" keys[i] "\":" map[keys[i]]
	printf "{%s}", text > (work "/new-" name)
}

function put_names(name, set,    n, i, keys, text) {
	n = sorted_keys(set, keys)
	for (i = 1; i <= n; i++) text = text (i > 1 ? " " : "") keys[i]
	printf "%s", text > (work "/new-" name)
}

# free is a number that nobody has or had, from low up or, if step is -1, from high down.
function free(low, high, step, used, had,    id) {
	for (id = step > 0 ? low : high; id >= low && id <= high; id += step) if (!(id in used) && !(id in had)) {
		used[id] = 1
		return id
	}
	print "update-users-groups: out of free numbers" > "/dev/stderr"
	exit 1
}

function read_machine(    n, i, all, f) {
	n = lines_of("old-group", all)
	for (i = 1; i <= n; i++) {
		split(all[i], f, ":")
		group_now[f[1]] = 1; group_id[f[1]] = f[3]; group_members[f[1]] = f[4]; group_password[f[1]] = f[2]
		gid_used[f[3] + 0] = 1
	}
	n = lines_of("old-passwd", all)
	for (i = 1; i <= n; i++) {
		split(all[i], f, ":")
		user_now[f[1]] = all[i]
		uid_used[f[3] + 0] = 1
	}
	names("declarative-users", declared_users)
	names("declarative-groups", declared_groups)
	numbers("uid-map", uid_map, uid_had)
	numbers("gid-map", gid_map, gid_had)
	numbers("auto-subuid-map", sub_map, sub_had)
}

# person tells whether a number is one that the distribution gives to none of its own.
function person(id) { return id >= 1000 && id < 30000 }

function make_groups(    line, f, n, i, name, id, members, had, keys) {
	while ((getline line < groups_file) > 0) {
		split(line, f, "|")
		name = f[1]; id = f[2]
		delete members
		n = split(f[3], had, ",")
		for (i = 1; i <= n; i++) members[had[i]] = 1
		if (name in group_now) {
			id = group_id[name]
			n = mutable == "mutable" ? split(group_members[name], had, ",") : 0
			for (i = 1; i <= n; i++) if (!(had[i] in declared_users)) members[had[i]] = 1
		} else if (id == "") {
			id = name in gid_map && !(gid_map[name] in gid_used) ? gid_map[name] : free(400, 999, -1, gid_used, gid_had)
		}
		gid_used[id + 0] = 1
		gid_map[name] = id; group_out[name] = id; group_id[name] = id
		n = sorted_keys(members, keys)
		line = ""
		for (i = 1; i <= n; i++) line = line (i > 1 ? "," : "") keys[i]
		print name ":" (name in group_password ? group_password[name] : "x") ":" id ":" line > (work "/new-group")
	}
	for (name in group_now) if (!(name in group_out)) {
		if (name in declared_groups || mutable != "mutable" && person(group_id[name])) continue
		print name ":" group_password[name] ":" group_id[name] ":" group_members[name] > (work "/new-group")
	}
}

function make_users(    n, i, all, f, was, name, id, shell, number) {
	n = lines_of("users", all)
	for (i = 1; i <= n; i++) {
		split(all[i], f, "|")
		name = f[1]; id = f[2]; shell = f[6]
		user_out[name] = 1
		if (name == "root" && name in user_now) {
			print user_now[name] > (work "/new-passwd")
			uid_map[name] = 0
			continue
		}
		delete was
		if (name in user_now) {
			split(user_now[name], was, ":")
			if (id != "" && id != was[3]) {
				print "warning: not applying UID change of user '" name "' (" was[3] " -> " id ") in /etc/passwd" > "/dev/stderr"
			}
			id = was[3]
			if (shell == "") shell = was[7]
		} else {
			if (f[9] ~ /^=/ && f[8] == "") f[8] = f[9]
			if (id == "" && name in uid_map && !(uid_map[name] in uid_used)) id = uid_map[name]
			if (id == "") id = f[7] == "normal" ? free(1000, 29999, 1, uid_used, uid_had) : free(400, 999, -1, uid_used, uid_had)
			if (shell == "") shell = f[7] == "normal" ? "/bin/bash" : "/usr/sbin/nologin"
		}
		uid_used[id + 0] = 1
		uid_map[name] = id
		if (f[8] ~ /^=/) hash[name] = substr(f[8], 2)
		number = f[3] in group_id ? group_id[f[3]] : 65534
		print name ":x:" id ":" number ":" f[11] ":" f[4] ":" shell > (work "/new-passwd")
		if (f[10] == "yes") {
			if (!(name in sub_map)) sub_map[name] = 100000 + (free(100000, 200000, 1, sub_used, sub_had) - 100000) * 65536
			print name ":" sub_map[name] ":65536" > (work "/new-subuid")
			print name ":" sub_map[name] ":65536" > (work "/new-subgid")
		}
	}
	for (name in user_now) if (!(name in user_out)) {
		split(user_now[name], was, ":")
		if (name in declared_users || mutable != "mutable" && person(was[3])) continue
		kept[name] = 1
		print user_now[name] > (work "/new-passwd")
	}
}

function make_shadow(    n, i, all, f, name, rest) {
	n = lines_of("old-shadow", all)
	for (i = 1; i <= n; i++) {
		split(all[i], f, ":")
		name = f[1]
		if (!(name in user_out) && !(name in kept)) continue
		seen[name] = 1
		if (mutable != "mutable" && name in user_out && name != "root") {
			rest = substr(all[i], length(f[1]) + length(f[2]) + 2)
			all[i] = name ":" (name in hash ? hash[name] : "!") rest
		}
		print all[i] > (work "/new-shadow")
	}
	for (name in user_out) if (!(name in seen)) print name ":" (name in hash ? hash[name] : "!") ":1::::::" > (work "/new-shadow")
}

BEGIN {
	for (n = split("group passwd shadow subuid subgid", empty, " "); n > 0; n--) printf "" > (work "/new-" empty[n])
	read_machine()
	make_groups()
	make_users()
	make_shadow()
	put_names("declarative-users", user_out)
	put_names("declarative-groups", group_out)
	put_numbers("uid-map", uid_map)
	put_numbers("gid-map", gid_map)
	put_numbers("auto-subuid-map", sub_map)
}
