package machine

// Accepted looks for the line of the login in a log of sshd's.
func (l *Login) Accepted(log string) { l.accepted(log) }
