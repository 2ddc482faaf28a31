package fake

import (
	"net"
	"sync"
	"sync/atomic"
)

// Listen opens a port that is no Milvus: every connection is given to handle, and
// closed after it. stop ends all.
func Listen(handle func(net.Conn)) (addr string, stop func(), err error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	var (
		mu    sync.Mutex
		conns = map[net.Conn]bool{}
		wg    sync.WaitGroup
	)
	wg.Go(func() {
		for {
			c, err := lis.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns[c] = true
			mu.Unlock()
			wg.Go(func() {
				handle(c)
				_ = c.Close()
				mu.Lock()
				delete(conns, c)
				mu.Unlock()
			})
		}
	})
	return lis.Addr().String(), func() {
		_ = lis.Close()
		mu.Lock()
		for c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	}, nil
}

// Proxy is a line to a server that can be cut and that can swallow what is sent.
type Proxy struct {
	addr string
	stop func()
	drop atomic.Bool
	cut  atomic.Int64 // bytes towards the client until the line is cut; negative: never

	mu    sync.Mutex
	conns []net.Conn
}

// NewProxy opens a line to addr. Stop it when done.
func NewProxy(addr string) (*Proxy, error) {
	p := &Proxy{}
	p.cut.Store(-1)
	var err error
	p.addr, p.stop, err = Listen(func(in net.Conn) {
		out, err := net.Dial("tcp", addr)
		if err != nil {
			return
		}
		p.mu.Lock()
		p.conns = append(p.conns, in, out)
		p.mu.Unlock()
		done := make(chan struct{})
		go func() { p.copy(out, in, false); _ = out.Close(); close(done) }()
		p.copy(in, out, true)
		_ = in.Close()
		<-done
	})
	return p, err
}

func (p *Proxy) copy(dst, src net.Conn, answers bool) {
	buf := make([]byte, 16<<10)
	for {
		n, err := src.Read(buf)
		if n > 0 && !p.drop.Load() {
			if left := p.cut.Load(); answers && left >= 0 {
				if int64(n) >= left {
					_, _ = dst.Write(buf[:left])
					p.cut.Store(-1)
					return
				}
				p.cut.Add(int64(-n))
			}
			if _, werr := dst.Write(buf[:n]); werr != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// Addr is host:port of the line.
func (p *Proxy) Addr() string { return p.addr }

// Drop swallows everything in both directions while it is on; connections stay open.
func (p *Proxy) Drop(on bool) { p.drop.Store(on) }

// CutAfter cuts one connection once that many more bytes went towards the client.
func (p *Proxy) CutAfter(bytes int64) { p.cut.Store(bytes) }

// Reset cuts all connections now.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		if t, is := c.(*net.TCPConn); is {
			_ = t.SetLinger(0) // RST, not FIN
		}
		_ = c.Close()
	}
	p.conns = nil
}

// Stop ends the line.
func (p *Proxy) Stop() {
	p.Reset()
	p.stop()
}
