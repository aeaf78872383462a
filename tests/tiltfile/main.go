// Reads a Tiltfile with Starlark's own interpreter, in Tilt's dialect, and prints what it would ask of Tilt: one line of JSON per call.
// What Tilt would do with it is not tried.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"os"
	"strings"

	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"
	"go.starlark.net/syntax"
)

// Of Tilt's functions, those that this repository's Tiltfile may use; any other is an error.
var recorded = []string{"docker_build", "k8s_resource", "k8s_yaml", "local", "watch_file"}

type call struct {
	Function string         `json:"function"`
	Args     []any          `json:"args"`
	Named    map[string]any `json:"named"`
}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: tiltfile FILE; its environment is that of this program")
	}
	if err := run(os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func run(path string) error {
	var calls []call
	functions := starlark.StringDict{
		"k8s_namespace": starlark.NewBuiltin("k8s_namespace", func(*starlark.Thread, *starlark.Builtin, starlark.Tuple, []starlark.Tuple) (starlark.Value, error) {
			return starlark.String("default"), nil
		}),
		"os": &starlarkstruct.Module{Name: "os", Members: starlark.StringDict{"getenv": starlark.NewBuiltin("getenv", getenv)}},
	}
	for _, name := range recorded {
		functions[name] = starlark.NewBuiltin(name, func(_ *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, named []starlark.Tuple) (starlark.Value, error) {
			made := call{Function: name, Args: []any{}, Named: map[string]any{}}
			for _, arg := range args {
				made.Args = append(made.Args, plain(arg))
			}
			for _, pair := range named {
				made.Named[string(pair[0].(starlark.String))] = plain(pair[1])
			}
			calls = append(calls, made)
			// What a call answers is only handed on, to `k8s_yaml`.
			return starlark.String("output of " + name), nil
		})
	}
	options := &syntax.FileOptions{TopLevelControl: true, GlobalReassign: true}
	if _, err := starlark.ExecFileOptions(options, &starlark.Thread{Name: path}, path, nil, functions); err != nil {
		return err
	}
	for _, made := range calls {
		line, err := json.Marshal(made)
		if err != nil {
			return err
		}
		fmt.Println(string(line))
	}
	return nil
}

func getenv(_ *starlark.Thread, builtin *starlark.Builtin, args starlark.Tuple, named []starlark.Tuple) (starlark.Value, error) {
	var name string
	var otherwise starlark.Value = starlark.None
	if err := starlark.UnpackArgs(builtin.Name(), args, named, "key", &name, "default?", &otherwise); err != nil {
		return nil, err
	}
	if value, is := os.LookupEnv(name); is {
		return starlark.String(value), nil
	}
	return otherwise, nil
}

// What stands in a value, as JSON has it.
func plain(value starlark.Value) any {
	switch value := value.(type) {
	case starlark.String:
		return string(value)
	case starlark.Bool:
		return bool(value)
	case *starlark.List:
		items := []any{}
		for index := range value.Len() {
			items = append(items, plain(value.Index(index)))
		}
		return items
	case *starlark.Dict:
		items := map[string]any{}
		for _, pair := range value.Items() {
			items[strings.Trim(pair[0].String(), `"`)] = plain(pair[1])
		}
		return items
	default:
		return value.String()
	}
}
