package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestFallbackIsSaid opens a model of which one layer has no form in integers, and
// the same model whole, and wants a line on the first alone.
func TestFallbackIsSaid(t *testing.T) {
	const name, damaged = "all-MiniLM-L6-v2", "encoder.layer.1.output.dense"
	for _, damage := range []bool{true, false} {
		cache := t.TempDir()
		t.Setenv("KINDRED_MODELS", cache)
		if err := os.Mkdir(filepath.Join(cache, name), 0o700); err != nil {
			t.Fatal(err)
		}
		size := 0
		for _, file := range []string{"config.json", "vocab.txt", "tokenizer_config.json", "model.safetensors", "kindred-model.json"} {
			data, err := os.ReadFile(filepath.Join("../../embed/testdata/tiny", file))
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case file == "kindred-model.json":
				files := fmt.Sprintf(`{"files": {"vocab.txt": {"size": %d}}, `, size)
				data = bytes.Replace(data, []byte("{"), []byte(files), 1)
			case file == "vocab.txt":
				size = len(data)
			case file == "model.safetensors" && damage:
				fillTensor(t, data, "bert."+damaged+".weight", 1e-40)
			}
			if err := os.WriteFile(filepath.Join(cache, name, file), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		var said bytes.Buffer
		a := &app{out: io.Discard, err: &said}
		a.cfg.Precision = "int16"
		m, err := a.openCached(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		line := said.String()
		if damage != strings.Contains(line, name+": these layers run in fp32, not int16: "+damaged+" (") || damage != (line != "") {
			t.Errorf("damaged %v: %q", damage, line)
		}
	}
}

// fillTensor sets every number of an fp32 tensor of a safetensors file.
func fillTensor(t *testing.T, file []byte, name string, v float32) {
	t.Helper()
	n := int(binary.LittleEndian.Uint64(file))
	var header map[string]json.RawMessage
	var tensor struct {
		Offsets [2]int `json:"data_offsets"`
	}
	if err := json.Unmarshal(file[8:8+n], &header); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(header[name], &tensor); err != nil {
		t.Fatalf("tensor %s: %v", name, err)
	}
	for at := tensor.Offsets[0]; at < tensor.Offsets[1]; at += 4 {
		binary.LittleEndian.PutUint32(file[8+n+at:], math.Float32bits(v))
	}
}
