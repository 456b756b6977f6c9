//go:build !faults

// Package fault names the points at which tests make the program fail. In a program that is built without the tag faults
// it does nothing.
package fault

// Point is a place where a test may kill, stop or delay the program. The name is its stop on a dispatch's way.
func Point(string) {}

// Arm takes the value of CORTEX_FAULT in env, a list of NAME=value, for a program whose own environment can't carry it.
func Arm[S ~string]([]S) {}

// Err is a place where a test may make an operation fail: it returns nil, or the error to return in the operation's stead.
func Err(string) error { return nil }
