package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/importer"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// list returns the API of the modules of the workspace, or else the module, in dir.
func list(dir string) (string, error) {
	exports, module, paths, err := exportData(dir)
	if err != nil {
		return "", err
	}
	imp := importer.ForCompiler(token.NewFileSet(), "gc", func(path string) (io.ReadCloser, error) {
		return os.Open(exports[path])
	})
	var out strings.Builder
	for _, path := range paths {
		p, err := imp.Import(path)
		if err != nil {
			return "", err
		}
		lines := packageAPI(p)
		slices.Sort(lines)
		for _, line := range lines {
			fmt.Fprintf(&out, "pkg %s, %s\n", strings.TrimPrefix(path, module+"/"), line)
		}
	}
	return out.String(), nil
}

// exportData returns the files of compiled export data by import path, the path of
// the module that the others are named after, and those of the packages that
// anybody may import.
func exportData(dir string) (files map[string]string, module string, paths []string, err error) {
	cmd := exec.Command("go", "list", "-export", "-deps", "-json=ImportPath,Name,Export,DepOnly,GoFiles,Module", "work")
	cmd.Dir = dir
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, "", nil, fmt.Errorf("go list: %w", err)
	}
	files = map[string]string{}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath, Name, Export string
			DepOnly                  bool
			GoFiles                  []string
			Module                   struct{ Path string }
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			slices.Sort(paths)
			return files, module, paths, nil
		} else if err != nil {
			return nil, "", nil, err
		}
		files[p.ImportPath] = p.Export
		if p.DepOnly || p.Name == "main" || len(p.GoFiles) == 0 || slices.Contains(strings.Split(p.ImportPath, "/"), "internal") {
			continue
		}
		if module == "" || len(p.Module.Path) < len(module) {
			module = p.Module.Path
		}
		paths = append(paths, p.ImportPath)
	}
}

// packageAPI returns the lines of a package.
func packageAPI(p *types.Package) []string {
	// Names of other packages are qualified by their name alone: it is what the
	// reader of a line sees in code.
	q := func(other *types.Package) string {
		if other == p {
			return ""
		}
		return other.Name()
	}
	var lines []string
	for _, name := range p.Scope().Names() {
		obj := p.Scope().Lookup(name)
		if !obj.Exported() {
			continue
		}
		switch obj := obj.(type) {
		case *types.Const:
			lines = append(lines, fmt.Sprintf("const %s %s = %s", name, types.TypeString(obj.Type(), q), obj.Val().ExactString()))
		case *types.TypeName:
			lines = append(lines, typeAPI(obj, q)...)
		default: // a variable or function
			lines = append(lines, types.ObjectString(obj, q))
		}
	}
	return lines
}

// typeAPI returns the lines of a type: its own, and one for every exported
// field and method.
func typeAPI(obj *types.TypeName, q types.Qualifier) []string {
	name := obj.Name()
	if obj.IsAlias() {
		return []string{types.ObjectString(obj, q)}
	}
	named := obj.Type().(*types.Named)
	var lines []string
	switch u := named.Underlying().(type) {
	case *types.Struct:
		lines = append(lines, "type "+name+" struct")
		for f := range u.Fields() {
			if f.Exported() {
				lines = append(lines, fmt.Sprintf("field %s.%s %s", name, f.Name(), types.TypeString(f.Type(), q)))
			}
		}
	case *types.Interface:
		lines = append(lines, "type "+name+" interface")
		for m := range u.Methods() {
			if m.Exported() {
				lines = append(lines, fmt.Sprintf("method %s.%s%s", name, m.Name(), signature(m, q)))
			} else {
				lines = append(lines, fmt.Sprintf("method %s has unexported methods", name))
			}
		}
	default:
		lines = append(lines, fmt.Sprintf("type %s %s", name, types.TypeString(u, q)))
	}
	for m := range named.Methods() {
		if m.Exported() {
			recv := types.TypeString(m.Signature().Recv().Type(), q)
			lines = append(lines, fmt.Sprintf("method (%s) %s%s", recv, m.Name(), signature(m, q)))
		}
	}
	return lines
}

// signature returns the parameters and results of a function or method.
func signature(f *types.Func, q types.Qualifier) string {
	sig := f.Signature()
	if n := sig.Results().Len(); n > 0 && strings.HasPrefix(sig.Results().At(0).Name(), "#") {
		// The compiler names the results of a function that returns from within a loop
		// over a function, if the source does not.
		results := make([]*types.Var, n)
		for i := range results {
			results[i] = types.NewParam(token.NoPos, nil, "", sig.Results().At(i).Type())
		}
		sig = types.NewSignatureType(nil, nil, nil, sig.Params(), types.NewTuple(results...), sig.Variadic())
	}
	return strings.TrimPrefix(types.TypeString(sig, q), "func")
}
