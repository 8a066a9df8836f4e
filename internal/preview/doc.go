// Package preview says what can be known of a deployment before anything is shipped: [Plan] what it would do, [Diff] how any two
// systems of a node differ, [WhyBuild] what would be built and why. It changes nothing, and knows nothing of how that is done: a
// deployment that asks a person first calls it, never the other way round.
//
// A [Side] is one of two systems that are compared; a [Comparison] is how they differ, and [Planned] is a comparison with what a
// deployment would send, what may lock out the login that is in use, and what would stop it. The systems themselves are
// compared by package compare, and derivations by package cause; this package brings them what they compare, from this
// machine's store where it is here, else from the target.
//
// Where a visit is handed in, it stays its owner's: only this machine's store, which is opened to read, is closed again. Failures are
// [session.Error], and say that the node is unchanged. What cannot be found out is no failure: Unknown says it.
package preview
