module millrace.dev/tests/tiltfile

go 1.24.0

require go.starlark.net v0.0.0-20260102030733-3fee463870c9

require golang.org/x/sys v0.0.0-20220715151400-c0bba94af5f8 // indirect
