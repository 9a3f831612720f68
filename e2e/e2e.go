// Package e2e plays Seaway's stories on real clusters: see the folder stories, the language in package story, and
// README.md for how to run and write one.
package e2e
