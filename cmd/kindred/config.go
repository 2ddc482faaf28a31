package main

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"github.com/goccy/go-yaml"
	"github.com/spf13/pflag"

	"github.com/kindred-search/kindred/index"
)

// Config is every setting that commands share. The same name is a key of
// kindred.yaml, a flag (--listen) and an environment variable
// (KINDRED_LISTEN); a flag wins over the environment, and that over the file.
type Config struct {
	Data   string `yaml:"data"`   // data directory; default: kindred in the user's data folder
	Server string `yaml:"server"` // address of a running server; "" works on Data directly
	Key    string `yaml:"key"`    // API key for Server
	Listen string `yaml:"listen"` // host:port that serve binds; default 127.0.0.1:7878
	Engine string `yaml:"engine"` // flat, hnsw or auto: how look-ups find customers
	// A Milvus that keeps customers and everything else instead of Data.
	Milvus         string `yaml:"milvus"` // host:port; "" keeps them in Data
	MilvusUser     string `yaml:"milvus-user"`
	MilvusPassword string `yaml:"milvus-password"`
	MilvusPrefix   string `yaml:"milvus-prefix"` // of all names there
	MilvusDatabase string `yaml:"milvus-database"`
	MilvusAPIKey   string `yaml:"milvus-api-key"`
	MilvusTLS      bool   `yaml:"milvus-tls"`
	MilvusCA       string `yaml:"milvus-ca"` // this and the next three imply MilvusTLS
	MilvusCert     string `yaml:"milvus-cert"`
	MilvusCertKey  string `yaml:"milvus-cert-key"`
	MilvusName     string `yaml:"milvus-server-name"`
	MilvusScan     string `yaml:"milvus-scan"`   // mirror, pushdown or auto
	MilvusIndex    string `yaml:"milvus-index"`  // as milvus.ParseIndex reads it; "" leaves it
	MilvusSearch   string `yaml:"milvus-search"` // auto, mirror or index
	MilvusShards   string `yaml:"milvus-shards"` // of new collections; "" is 1

	Device string `yaml:"device"` // auto, cpu, cuda, or as cuda:0,1

	Threads   string `yaml:"threads"`   // cores to use; "" for all
	Memory    string `yaml:"memory"`    // bytes the process may take, such as 2GiB; "" for any
	Precision string `yaml:"precision"` // arithmetic of models: fp32, int16, int8, or fp16 or bf16 on a device; "" for int16

	JSON  bool `yaml:"json"`  // results as JSON on standard output
	Quiet bool `yaml:"quiet"` // no progress
}

// setting ties one field of Config to its names.
type setting struct {
	name, def, help string
	text            *string
	flag            *bool
}

func (c *Config) settings() []setting {
	return []setting{
		{name: "data", def: dataDir(), help: "data directory", text: &c.Data},
		{name: "server", help: "work on a running server instead of --data, such as http://127.0.0.1:7878", text: &c.Server},
		{name: "key", help: "API key for --server", text: &c.Key},
		{name: "listen", def: "127.0.0.1:7878", help: "host:port to serve on", text: &c.Listen},
		{name: "engine", def: "flat", help: "how search and similar find customers: flat (exact), hnsw (a graph: faster, may miss some), auto (by size)", text: &c.Engine},
		{name: "milvus", help: "keep customers in the Milvus at host:port instead of --data", text: &c.Milvus},
		{name: "milvus-user", help: "user of --milvus", text: &c.MilvusUser},
		{name: "milvus-password", help: "password of --milvus; better given as KINDRED_MILVUS_PASSWORD", text: &c.MilvusPassword},
		{name: "milvus-prefix", def: "kindred", help: "what names in --milvus begin with: one for each installation", text: &c.MilvusPrefix},
		{name: "milvus-database", help: "database in --milvus (default the server's own)", text: &c.MilvusDatabase},
		{name: "milvus-api-key", help: "API key of --milvus instead of a user; better given as KINDRED_MILVUS_API_KEY", text: &c.MilvusAPIKey},
		{name: "milvus-tls", help: "speak TLS to --milvus; its certificate is always checked", flag: &c.MilvusTLS},
		{name: "milvus-ca", help: "PEM file with the authority of its certificate (default the system's); as the next three, means --milvus-tls", text: &c.MilvusCA},
		{name: "milvus-cert", help: "PEM file with our certificate, for mutual TLS", text: &c.MilvusCert},
		{name: "milvus-cert-key", help: "PEM file with the key of --milvus-cert", text: &c.MilvusCertKey},
		{name: "milvus-server-name", help: "name in its certificate, where that is not the host of --milvus", text: &c.MilvusName},
		{name: "milvus-scan", def: "mirror", help: "where lists of one vector are found: mirror (in memory), pushdown (in Milvus; other lists are refused), auto (in Milvus, other lists in memory)", text: &c.MilvusScan},
		{name: "milvus-index", help: "vector index of new collections in --milvus: FLAT (default), IVF_FLAT, IVF_SQ8, HNSW, DISKANN, GPU_..., with parameters as in hnsw:M=16,efConstruction=200,ef=96", text: &c.MilvusIndex},
		{name: "milvus-search", def: "auto", help: "where search and similar run: mirror (in memory, exact), index (in Milvus), auto (in Milvus where --milvus-index names an index that may miss some)", text: &c.MilvusSearch},
		{name: "milvus-shards", help: "shards of new collections in --milvus, over which writes spread (default 1)", text: &c.MilvusShards},
		{name: "device", def: "auto", help: "where populations are scored, and models with --precision fp16 or bf16 computed: auto (the CUDA devices where this binary and machine have some), cpu, cuda, or cuda:0,1 for some of them", text: &c.Device},
		{name: "threads", help: "cores to use (default all)", text: &c.Threads},
		{name: "memory", help: "memory that the process may take, such as 512MB or 2GiB (default any)", text: &c.Memory},
		{name: "precision", help: "arithmetic of models: fp32, int16, int8, or fp16 or bf16 on a CUDA device (default int16)", text: &c.Precision},
		{name: "json", help: "results as JSON on standard output", flag: &c.JSON},
		{name: "quiet", help: "no progress", flag: &c.Quiet},
	}
}

// dataDir is where data lies unless told: XDG_DATA_HOME/kindred, on Linux
// .local/share/kindred at home, elsewhere the system's folder for a program's
// files.
func dataDir() string {
	if dir := os.Getenv("XDG_DATA_HOME"); dir != "" {
		return filepath.Join(dir, "kindred")
	}
	if home, err := os.UserHomeDir(); err == nil && runtime.GOOS == "linux" {
		return filepath.Join(home, ".local", "share", "kindred")
	}
	if dir, err := os.UserConfigDir(); err == nil {
		return filepath.Join(dir, "kindred")
	}
	return "kindred-data"
}

// configFileEnv names the settings file; unset, ./kindred.yaml is read where it is.
const (
	configFileEnv = "KINDRED_CONFIG"
	maxConfigFile = 1 << 20
)

func addConfigFlags(flags *pflag.FlagSet) {
	var c Config
	for _, s := range c.settings() {
		if s.flag != nil {
			flags.Bool(s.name, false, s.help)
		} else {
			flags.String(s.name, s.def, s.help)
		}
	}
}

// loadConfig gathers the settings and reports all that is wrong with them.
func loadConfig(flags *pflag.FlagSet) (Config, error) {
	var c Config
	for _, s := range c.settings() {
		if s.text != nil {
			*s.text = s.def
		}
	}
	var faults []error
	if err := c.readFile(); err != nil {
		faults = append(faults, err)
	}
	for _, s := range c.settings() {
		faults = append(faults, s.override(flags))
	}
	faults = append(faults, c.Validate())
	return c, errors.Join(faults...)
}

func (c *Config) readFile() error {
	path, named := os.LookupEnv(configFileEnv)
	if !named {
		path = "kindred.yaml"
	}
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) && !named {
		return nil
	}
	if err != nil {
		return fmt.Errorf("settings file: %w", err)
	}
	if info.Size() > maxConfigFile {
		return fmt.Errorf("settings file %s: %d bytes, more than %d: is it the right file?", path, info.Size(), maxConfigFile)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("settings file: %w", err)
	}
	before := *c
	if err := yaml.UnmarshalWithOptions(raw, c, yaml.Strict()); err != nil {
		return fmt.Errorf("settings file %s: %w", path, err)
	}
	if *c == (Config{}) { // what a file that names nothing makes of it
		*c = before
	}
	return nil
}

// override applies the environment and then the flag.
func (s setting) override(flags *pflag.FlagSet) error {
	env := envName(s.name)
	value, ok := os.LookupEnv(env)
	from := env
	if f := flags.Lookup(s.name); f != nil && f.Changed {
		value, ok, from = f.Value.String(), true, "--"+s.name
	}
	switch {
	case !ok:
	case s.text != nil:
		*s.text = value
	default:
		on, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("%s=%q: want true or false", from, value)
		}
		*s.flag = on
	}
	return nil
}

func envName(name string) string {
	out := []byte("KINDRED_" + name)
	for i, b := range out {
		if b >= 'a' && b <= 'z' {
			out[i] = b - 'a' + 'A'
		}
		if b == '-' {
			out[i] = '_'
		}
	}
	return string(out)
}

// Validate reports all faults.
func (c *Config) Validate() error {
	var faults []error
	if c.Data == "" {
		faults = append(faults, errors.New("data: empty: name a directory"))
	}
	if host, port, err := net.SplitHostPort(c.Listen); err != nil {
		faults = append(faults, fmt.Errorf("listen %q: want host:port, such as 127.0.0.1:7878", c.Listen))
	} else if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		faults = append(faults, fmt.Errorf("listen %s: port %q: want 0 to 65535", host, port))
	}
	if c.Server != "" {
		if u, err := url.Parse(c.Server); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			faults = append(faults, fmt.Errorf("server %q: want http://host:port or https://host", c.Server))
		}
	}
	switch index.EngineKind(c.Engine) {
	case index.EngineFlat, index.EngineHNSW, index.EngineAuto:
	default:
		faults = append(faults, fmt.Errorf("engine %q: this version has flat, hnsw and auto", c.Engine))
	}
	if _, asked, err := deviceNumbers(c.Device); err != nil {
		faults = append(faults, err)
	} else if !asked && c.Device != deviceAuto && c.Device != deviceCPU {
		faults = append(faults, fmt.Errorf("device %q: want auto, cpu, cuda, or numbers of devices as in cuda:0,1", c.Device))
	}
	return errors.Join(append(faults, c.validateMilvus(), c.validateLimits())...)
}
