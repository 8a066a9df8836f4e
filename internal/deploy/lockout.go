package deploy

import (
	"context"
	"strings"

	"ferry/internal/agent"
)

// lockout decides whether to go on with a system that may lock out the login that deploys it: if it may not, if that is
// allowed, or if the person that ask asks says so. Without one, ask is nil. No other permission answers it.
func lockout(ctx context.Context, risks []agent.Risk, allow bool, ask func(ctx context.Context, question string) (bool, error)) error {
	if len(risks) == 0 || allow {
		return nil
	}
	texts := make([]string, len(risks))
	for i, r := range risks {
		texts[i] = r.Text
	}
	const what = "the new system may lock this very login out"
	if ask != nil {
		question := what + ":\n  " + strings.Join(texts, "\n  ") + "\nactivate it all the same?"
		agreed, err := ask(ctx, question)
		if err != nil {
			return err
		}
		if agreed {
			return nil
		}
	}
	return hint(what+": "+strings.Join(texts, "; "), "correct the configuration; if you mean it, use --allow-lockout")
}
