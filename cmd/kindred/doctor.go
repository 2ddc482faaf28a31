package main

import (
	"cmp"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kindred-search/kindred/embed"
	"github.com/kindred-search/kindred/embed/models"
	"github.com/kindred-search/kindred/index/milvus"
	"github.com/kindred-search/kindred/internal/buildinfo"
	"github.com/kindred-search/kindred/internal/simd"
)

type finding struct {
	What  string `json:"what"`
	Found string `json:"found"`
	Wrong bool   `json:"wrong,omitempty"`
	// Collection is the collection in a Milvus that was looked at.
	Collection *milvus.Examined `json:"collection,omitempty"`
	// CUDA is what there is of it.
	CUDA *foundCUDA `json:"cuda,omitempty"`
}

func (a *app) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "Say what this machine and this installation have",
		Long: "doctor looks at this machine, the data directory, the models, and with --milvus at that: whether it can be reached and used, what it\n" +
			"says of itself, and what it keeps for this installation. It changes nothing. Exit code 1 means that something is wrong.",
		Example: "  kindred doctor --json\n  kindred doctor --milvus localhost:19530", Args: arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			list := append(a.examine(), a.examineMilvus(cmd.Context())...)
			wrong := 0
			for _, f := range list {
				if f.Wrong {
					wrong++
				}
			}
			if a.cfg.JSON {
				if err := a.json(list); err != nil {
					return err
				}
			} else {
				for _, f := range list {
					mark := "ok   "
					if f.Wrong {
						mark = "WRONG"
					}
					if err := a.printf("%s %-18s %s\n", mark, f.What, f.Found); err != nil {
						return err
					}
				}
			}
			if wrong > 0 {
				return fmt.Errorf("%d things are wrong", wrong)
			}
			return nil
		},
	}
}

func (a *app) examine() []finding {
	b := buildinfo.Read()
	list := []finding{
		{What: "version", Found: strings.TrimSpace(b.Version + " " + b.Commit)},
		{What: "built with", Found: b.Go + " for " + b.Platform},
		{What: "vector code", Found: simd.Features()},
		{What: "cores", Found: fmt.Sprintf("%d of %d in use (--threads)", runtime.GOMAXPROCS(0), runtime.NumCPU())},
	}
	list = append(list, finding{What: "memory limit", Found: cmp.Or(a.cfg.Memory, "none (--memory sets one)")},
		finding{What: "precision", Found: cmp.Or(a.cfg.Precision, string(embed.DefaultPrecision)+" (--precision chooses)")},
		finding{What: "engine", Found: a.cfg.Engine})
	list = append(list, a.examineDevice()...)
	if mem, ok := memorySize(); ok {
		list = append(list, finding{What: "memory", Found: gigabytes(mem)})
	}
	data := finding{What: "data directory", Found: a.cfg.Data}
	if info, err := os.Stat(a.cfg.Data); err != nil {
		data.Found += " (not there yet: the first import or serve makes it)"
	} else if !info.IsDir() {
		data.Found, data.Wrong = a.cfg.Data+" is a file: name another with --data", true
	}
	list = append(list, data)
	if free, ok := freeDisk(a.cfg.Data); ok {
		list = append(list, finding{What: "free disk", Found: gigabytes(free), Wrong: free < 1<<28})
	}
	for _, e := range models.Catalogue() {
		f := finding{What: "model", Found: e.Name + ": not here (kindred models pull " + e.Name + ")"}
		if dir, ok := models.Find(e.Name); ok {
			f.Found = e.Name + ": here, hashes checked"
			if err := models.Verify(dir); err != nil {
				f.Found, f.Wrong = fmt.Sprintf("%s: %v: run kindred models pull %s --force", e.Name, err, e.Name), true
			}
		}
		list = append(list, f)
	}
	port := finding{What: "address", Found: a.cfg.Listen + ": free"}
	if l, err := net.Listen("tcp", a.cfg.Listen); err != nil {
		port.Found = fmt.Sprintf("%s: in use or not ours (%v)", a.cfg.Listen, err)
	} else if err := l.Close(); err != nil {
		port.Found, port.Wrong = err.Error(), true
	}
	return append(list, port)
}

func gigabytes(n uint64) string { return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30)) }
