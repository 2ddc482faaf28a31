package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/kindred-search/kindred/api"
	"github.com/kindred-search/kindred/collection"
	"github.com/kindred-search/kindred/embed/models"
	"github.com/kindred-search/kindred/internal/buildinfo"
)

// stopTime is what jobs get to reach a checkpoint when the server stops.
const stopTime = 30 * time.Second

func (a *app) serveCommand() *cobra.Command {
	var importRoot, pprofAddr string
	var vectors cacheFlags
	cmd := &cobra.Command{
		Use: "serve", Short: "Serve the data directory over HTTP",
		Long: "serve answers on --listen until it is stopped. Without an API key (kindred keys add) it binds to this machine only.\n" +
			"Jobs that were running go on where they were at the next start.",
		Example: "  kindred serve --data ./kindred-data\n  kindred serve --listen 0.0.0.0:7878   # after kindred keys add",
		Args:    arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if a.limits.MinSeeds < 1 || a.limits.MinAudience < 1 {
				return usagef("--min-seeds %d, --min-audience %d: want 1 or more", a.limits.MinSeeds, a.limits.MinAudience)
			}
			end, err := a.profiler(cmd.Context(), pprofAddr)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, end()) }()
			return a.serve(cmd.Context(), a.cfg.Data, importRoot, vectors, func(string) {})
		},
	}
	cmd.Flags().StringVar(&importRoot, "import-root", "", "folder from which files may be imported by path (default: none may)")
	cmd.Flags().StringVar(&pprofAddr, "pprof", "", "host:port of this machine to serve Go's profiles on (default: none)")
	cmd.Flags().IntVar(&a.limits.MinSeeds, "min-seeds", 20, "fewest seeds that must match")
	cmd.Flags().IntVar(&a.limits.MinAudience, "min-audience", 100, "fewest members of an audience whose list may be read or exported")
	vectors.add(cmd.Flags())
	return cmd
}

// listen binds --listen.
func (a *app) listen(ctx context.Context) (net.Listener, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", a.cfg.Listen)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s is in use by another program: choose another with --listen, such as --listen 127.0.0.1:0 for any free port", a.cfg.Listen)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", a.cfg.Listen, err)
	}
	return listener, nil
}

// serve answers on --listen until ctx ends. ready hears the address once
// requests are taken.
func (a *app) serve(ctx context.Context, dir, importRoot string, vectors cacheFlags, ready func(url string)) (err error) {
	// The address first: it is the likelier mistake, and cheap to see.
	listener, err := a.listen(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := listener.Close(); cerr != nil && !errors.Is(cerr, net.ErrClosed) {
			err = errors.Join(err, cerr)
		}
	}()
	log := slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: slog.LevelInfo}))
	store, err := a.openData(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	known, err := vectors.open(dir)
	if err != nil {
		return err
	}
	if known != nil {
		defer func() { err = errors.Join(err, known.Close()) }()
	}
	svc, err := collection.New(ctx, collection.Options{Store: store, KV: store.KV(), OpenModel: a.openQueue(known), ImportRoot: importRoot, MaxMemory: a.cfg.customerMemory(), Schedule: true, Shared: a.outside != nil, Outside: a.outside, Logger: log, Limits: a.limits})
	if err != nil {
		return err
	}
	defer func() {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
		defer cancel()
		err = errors.Join(err, svc.Close(stop))
	}()
	installed, err := models.List()
	if err != nil {
		return err
	}
	opt := api.Options{Service: svc, Keys: api.NewKeyStore(store.KV()), KV: store.KV(), Listen: listener.Addr().String(), Cache: known, UploadDir: filepath.Join(dir, "uploads"), Version: buildinfo.Read().Version, Logger: log}
	for _, m := range installed {
		opt.Models = append(opt.Models, m.Manifest.Name)
	}
	if device, err := a.theDevice(); err == nil && device != nil {
		opt.Collectors = append(opt.Collectors, device)
	}
	if a.milvus != nil {
		opt.Collectors = append(opt.Collectors, a.milvus)
		w := &warmth{store: a.milvus.store, log: log}
		opt.Readiness = w.readiness
		warming, stop := context.WithCancel(ctx)
		var reading sync.WaitGroup
		reading.Go(func() { w.keep(warming, svc) })
		defer reading.Wait()
		defer stop()
	}
	server, err := api.New(opt)
	if err != nil {
		return err
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	a.say("kindred serves %s on http://%s (stop with Ctrl-C)", abs, listener.Addr())
	ready("http://" + listener.Addr().String())
	err = server.Serve(ctx, listener)
	a.say("stopped; unfinished jobs go on at the next start")
	return err
}
