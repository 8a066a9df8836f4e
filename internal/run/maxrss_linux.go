package run

// maxrssUnit is what getrusage(2) counts memory in, in bytes.
const maxrssUnit = 1 << 10
