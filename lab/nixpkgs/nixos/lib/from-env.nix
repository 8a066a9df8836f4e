# The path in an environment variable, or the default where it is not set.
name: default:
let value = builtins.getEnv name; in
if value == "" then default else /. + value
