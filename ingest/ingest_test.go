package ingest

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/unicode"

	"github.com/kindred-search/kindred/profile"
)

func shared(t *testing.T, rel string) string {
	t.Helper()
	root := os.Getenv("KINDRED_SHARED")
	if root == "" {
		root = "../../shared"
	}
	path := filepath.Join(root, "data", rel)
	if _, err := os.Stat(path); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("shared data is needed in CI: %v", err)
		}
		t.Skipf("no shared data: %v", err)
	}
	return path
}

func write(t testing.TB, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// readAll returns all records and row errors of a file.
func readAll(t testing.TB, path string, opt Options) (*Plan, []profile.Record, []*RowError) {
	t.Helper()
	p, err := Inspect(context.Background(), path, opt)
	if err != nil {
		t.Fatal(err)
	}
	r, err := p.Open(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var recs []profile.Record
	var bad []*RowError
	for {
		rec, err := r.Next()
		if errors.Is(err, io.EOF) {
			return p, recs, bad
		}
		var re *RowError
		if errors.As(err, &re) {
			bad = append(bad, re)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		recs = append(recs, rec)
	}
}

func TestPlansOfRealFiles(t *testing.T) {
	for _, c := range []struct {
		path, id string
		group    string
		rows     int
		header   bool
		want     map[string]string // use/type
	}{
		{path: "adult/adult.data.csv.gz", rows: 32561, want: map[string]string{"c1": "number", "c3": "number", "c4": "category", "c10": "category", "c15": "category"}},
		{path: "bank_marketing/bank-full.csv.gz", header: true, rows: 45211, want: map[string]string{"age": "number", "job": "category", "default": "bool", "balance": "number", "y": "bool", "month": "category"}},
		{path: "womens_clothing/reviews.csv.gz", header: true, id: "c1", rows: 23486, want: map[string]string{"Title": "text", "Review Text": "text", "Age": "number", "Recommended IND": "bool", "Clothing ID": "category", "Class Name": "category"}},
		{path: "online_shopping_10_cats/online_shopping_10_cats.csv.gz", header: true, rows: 62774, want: map[string]string{"cat": "category", "label": "bool", "review": "text"}},
		{path: "telco_churn/telco_customer_churn.csv.gz", header: true, id: "customerID", rows: 7043, want: map[string]string{"gender": "category", "SeniorCitizen": "bool", "tenure": "number", "TotalCharges": "number", "Contract": "category", "Churn": "bool"}},
		{path: "ecommerce_churn_zh/ecommerce_churn.csv.gz", header: true, id: "CustomerID", rows: 5630, want: map[string]string{"Gender": "category", "首选登录设备": "category"}},
		{path: "customer_personality/marketing_campaign.csv", header: true, id: "ID", rows: 2240, want: map[string]string{"Year_Birth": "number", "Dt_Customer": "time", "Income": "number", "Response": "bool", "Z_Revenue": "ignored"}},
		{path: "online_retail/online_retail.csv.gz", header: true, group: "CustomerID", rows: 4372, want: map[string]string{"CustomerID": "key", "InvoiceNo": "count", "StockCode": "count", "Description": "text", "Quantity": "number", "InvoiceDate": "time", "Country": "category"}},
	} {
		t.Run(filepath.Dir(c.path), func(t *testing.T) {
			p, recs, bad := readAll(t, shared(t, c.path), Options{GroupBy: c.group})
			if p.Header != c.header || p.IDColumn != c.id {
				t.Errorf("header %v, id %q, want %v, %q", p.Header, p.IDColumn, c.header, c.id)
			}
			for name, want := range c.want {
				col := p.Column(name)
				if col == nil {
					t.Fatalf("no column %q in\n%s", name, p)
				}
				got := string(col.Type)
				if col.Use != UseField && col.Use != UseText {
					got = string(col.Use)
				}
				if got != want {
					t.Errorf("%s is %s, want %s (%s)", name, got, want, col.Why)
				}
			}
			if err := p.Schema().Validate(); err != nil {
				t.Error(err)
			}
			if lost := c.rows - len(recs); lost < 0 || lost*200 > c.rows {
				t.Errorf("%d records, want about %d; first faults %v", len(recs), c.rows, bad[:min(3, len(bad))])
			}
			if t.Failed() {
				t.Log(p)
			}
		})
	}
}

const sampleCSV = "customer_id,年龄,城市,评价\n" +
	"a1,31,北京,\"很好，下次再来。服务\"\"热情\"\"，环境也不错\"\n" +
	"a2,44,上海,\"第一行\n第二行，味道一般，价格有点贵了\"\n" +
	"a3,,广州,送货很快包装完好质量也很好推荐大家购买\n"

func TestEncodingsAgree(t *testing.T) {
	_, want, bad := readAll(t, write(t, "a.csv", []byte(sampleCSV)), Options{})
	if len(want) != 3 || len(bad) != 0 {
		t.Fatalf("%d records, %v", len(want), bad)
	}
	if got := want[0].Texts; len(got) != 1 || got[0].Body != `很好，下次再来。服务"热情"，环境也不错` {
		t.Fatalf("texts %v", got)
	}
	gb, _ := simplifiedchinese.GB18030.NewEncoder().Bytes([]byte(sampleCSV))
	le, _ := unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM).NewEncoder().Bytes([]byte(sampleCSV))
	be, _ := unicode.UTF16(unicode.BigEndian, unicode.UseBOM).NewEncoder().Bytes([]byte(sampleCSV))
	for name, data := range map[string][]byte{"gb18030": gb, "utf-16le": le, "utf-16be": be, "utf-8": []byte("\ufeff" + sampleCSV)} {
		p, got, bad := readAll(t, write(t, "b.csv", data), Options{})
		if p.Encoding != name || len(bad) > 0 || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: taken for %s, %v\n%v", name, p.Encoding, bad, got)
		}
	}
}

func TestBadRowsDoNotStopReading(t *testing.T) {
	var b strings.Builder
	b.WriteString("id,age,city\n")
	for i := range 100 {
		fmt.Fprintf(&b, "u%d,%d,town%d\n", i, 20+i%30, i%3)
	}
	b.WriteString("u5,30,town1\n")        // 102 twice
	b.WriteString("x1,30\n")              // 103 short
	b.WriteString("x2,3\xff0,town\n")     // 104 broken
	b.WriteString("x3,abc,town1\n")       // 105 type
	b.WriteString("x4,\"30,town1\n")      // 106 never closed
	b.WriteString("x5,\"30\"oops,town\n") // 107
	b.WriteString(",30,town1\n")          // 108 no id
	b.WriteString("last,33,town2\n")
	_, recs, bad := readAll(t, write(t, "bad.csv", []byte(b.String())), Options{SampleRows: 100, Encoding: "utf-8"})
	if len(recs) != 101 || recs[100].ID != "last" {
		t.Fatalf("%d records", len(recs))
	}
	for i, want := range []string{"duplicate id", "2 fields", "UTF-8", "not a number", "closing quote", "closing quote", "is empty"} {
		if i >= len(bad) || bad[i].Line != 102+i || !strings.Contains(bad[i].Reason, want) {
			t.Errorf("fault %d: %v, want line %d %s", i, bad[min(i, len(bad)-1)], 102+i, want)
		}
	}
}

// A column that is constant, empty or of noughts and ones as far as the sample
// goes may be more further down: files are often sorted by date.
func TestColumnsBeyondTheSample(t *testing.T) {
	var b strings.Builder
	b.WriteString("id,days,visits,result,note,flag\n")
	for i := range 400 {
		if i < 200 {
			fmt.Fprintf(&b, "u%d,-1,%d,unknown,,yes\n", i, i%2)
		} else {
			fmt.Fprintf(&b, "u%d,%d,%d,good,seen,no\n", i, i, i%7)
		}
	}
	path := write(t, "sorted.csv", []byte(b.String()))
	plan, recs, bad := readAll(t, path, Options{SampleRows: 200})
	if plan.Whole || len(recs) != 400 || len(bad) != 0 {
		t.Fatalf("whole %v, %d records, faults %v", plan.Whole, len(recs), bad)
	}
	last := recs[399].Fields
	for _, name := range []string{"days", "visits", "result", "note", "flag"} {
		if v, ok := last[name]; !ok || v.Kind == "" {
			t.Errorf("%s is left out: %+v", name, plan.Columns)
		}
	}
	if last["days"].Num != 399 || last["visits"].Num != 399%7 || last["result"].Str != "good" {
		t.Errorf("last row %v", last)
	}
	if plan, _, _ := readAll(t, path, Options{}); !plan.Whole {
		t.Error("a small file is not sampled whole")
	}
}

func TestNDJSONShapes(t *testing.T) {
	data := `{"id":"a","fields":{"age":30,"tags":["x","y"]},"texts":["hello",{"field":"note","body":"hi"}],"vector":[1,0.5]}
{"id":"b","fields":{"age":31,"tags":["x"]}}
{"id":"c"} trailing
`
	_, recs, bad := readAll(t, write(t, "a.ndjson", []byte(data)), Options{})
	if len(recs) != 2 || len(bad) != 1 || bad[0].Line != 3 {
		t.Fatalf("%v %v", recs, bad)
	}
	a := recs[0]
	if a.ID != "a" || a.Fields["age"].Num != 30 || len(a.Fields["tags"].Set) != 2 || len(a.Texts) != 2 || a.Vector[1] != 0.5 {
		t.Fatalf("%+v", a)
	}
}

func TestFold(t *testing.T) {
	data := "user_id,when,price,kind\n7.0,2024-01-01,2,a\n8.0,2024-01-02,5.5,b\n7.0,2024-01-04,4,b\n,2024-01-04,4,b\n"
	_, recs, bad := readAll(t, write(t, "o.csv", []byte(data)), Options{GroupBy: "user_id"})
	if len(recs) != 2 || recs[0].ID != "7" || len(bad) != 1 || bad[0].Line != 5 {
		t.Fatalf("%v %v", recs, bad)
	}
	f := recs[0].Fields
	for name, want := range map[string]float64{"lines": 2, "price_sum": 6, "price_mean": 3, "price_max": 4, "when_days": 3, "kind_distinct": 2} {
		if f[name].Num != want {
			t.Errorf("%s is %v, want %v", name, f[name].Num, want)
		}
	}
	p, err := Inspect(context.Background(), write(t, "p.csv", []byte(data)), Options{GroupBy: "user_id", MaxGroupBytes: 10})
	if err != nil {
		t.Fatal(err)
	}
	r, err := p.Open(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Next(); err == nil || !strings.Contains(err.Error(), "MiB") {
		t.Errorf("limit: %v", err)
	}
}

func TestReadSeeds(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct {
		data string
		want []Seed
		bad  string
	}{
		{data: "a\nb\n", want: []Seed{{"a", 1}, {"b", 1}}},
		{data: "customer_id,weight\n17850.0,2\nb,\n", want: []Seed{{"17850", 2}, {"b", 1}}},
		{data: "{\"id\":\"a\",\"weight\":0.5}\n", want: []Seed{{"a", 0.5}}},
		{data: "id,weight\na,-1\nb,NaN\n", bad: "line 2"},
	} {
		got, err := ReadSeeds(ctx, write(t, "s", []byte(c.data)), Options{})
		if c.bad != "" {
			if err == nil || !strings.Contains(err.Error(), c.bad) || !strings.Contains(err.Error(), "line 3") {
				t.Errorf("%q: %v", c.data, err)
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: %v %v", c.data, got, err)
		}
	}
}

type parquetRow struct {
	ID   string   `parquet:"id"`
	Age  int64    `parquet:"age"`
	City *string  `parquet:"city,optional"`
	Tags []string `parquet:"tags,list"`
}

func parquetBytes(t testing.TB) []byte {
	var buf bytes.Buffer
	w := parquet.NewGenericWriter[parquetRow](&buf)
	city := "Oslo"
	for i := range 500 {
		row := parquetRow{ID: fmt.Sprint("u", i), Age: int64(i % 50), Tags: []string{"a", "b"}}
		if i%2 == 0 {
			row.City = &city
		}
		if _, err := w.Write([]parquetRow{row}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestParquet(t *testing.T) {
	p, recs, bad := readAll(t, write(t, "a.parquet", parquetBytes(t)), Options{})
	if len(recs) != 500 || len(bad) > 0 || p.IDColumn != "id" {
		t.Fatalf("%d records, %v\n%s", len(recs), bad, p)
	}
	r := recs[2]
	if r.ID != "u2" || r.Fields["age"].Num != 2 || len(r.Fields["tags"].Set) != 2 {
		t.Fatalf("%+v", r)
	}
}

// Damaged files must end in an error or in rows, soon, never in a crash here.
func TestParquetDamaged(t *testing.T) {
	good := parquetBytes(t)
	rng := rand.New(rand.NewPCG(1, 2))
	failed := 0
	for i := range 12 {
		data := bytes.Clone(good)
		for range 1 + i*3 {
			data[rng.IntN(len(data)-4)+4] ^= byte(1 << rng.IntN(8))
		}
		if i == 0 {
			data = data[:len(data)/2]
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		p, err := Inspect(ctx, write(t, "d.parquet", data), Options{})
		if err != nil {
			failed++
			if !strings.Contains(err.Error(), "d.parquet") {
				t.Errorf("the file is not named: %v", err)
			}
		} else if p == nil {
			t.Error("neither plan nor error")
		}
		if ctx.Err() != nil {
			t.Errorf("file %d took too long", i)
		}
		cancel()
	}
	if failed == 0 {
		t.Error("no damage was noticed")
	}
}

func FuzzCSV(f *testing.F) {
	f.Add([]byte("a,b\n1,\"x\n\"\"y\"\n\"z"), byte(','))
	f.Fuzz(func(t *testing.T, data []byte, delim byte) {
		if delim >= 0x80 || delim == '"' || delim == '\n' || delim == '\r' {
			return
		}
		s := newCSV(bytes.NewReader(data), func() error { return nil }, delim, Options{})
		for range len(data) + 2 {
			_, err := s.next()
			if errors.Is(err, io.EOF) {
				return
			}
		}
		t.Fatal("more rows than bytes")
	})
}

func FuzzNDJSON(f *testing.F) {
	f.Add([]byte(`{"id":1,"a":{"b":[1,"x",{"y":2}]}}` + "\n" + `{"id":"a","texts":["x"],"vector":[1e3]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := newNDJSON(bytes.NewReader(data), func() error { return nil }, nil, Options{})
		for range len(data) + 2 {
			if _, err := s.next(); errors.Is(err, io.EOF) {
				return
			}
		}
		t.Fatal("more rows than bytes")
	})
}

func FuzzSniff(f *testing.F) {
	f.Add([]byte(sampleCSV))
	f.Add([]byte("\xff\xfea\x00,\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		enc, _ := sniffEncoding(data, true)
		if _, err := decoder(enc); err != nil {
			t.Fatal(err)
		}
		sniffDelimiter(data)
	})
}

func BenchmarkCSV(b *testing.B) {
	var buf bytes.Buffer
	buf.WriteString("id,age,income,city,job,member,score,visits\n")
	for i := range 100000 {
		fmt.Fprintf(&buf, "u%d,%d,%d.%d,town%d,job%d,yes,%d,%d\n", i, 20+i%60, i%9999, i%10, i%50, i%20, i%100, i%7)
	}
	path := write(b, "b.csv", buf.Bytes())
	b.ResetTimer()
	rows := 0
	for b.Loop() {
		_, recs, _ := readAll(b, path, Options{})
		rows += len(recs)
	}
	b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "rows/s")
}

func FuzzSeeds(f *testing.F) {
	f.Add([]byte("id,weight\na,1\nb,\n"))
	f.Add([]byte("a\nb\n\n\"c\nd\""))
	f.Add([]byte(`{"id":"a","weight":2}` + "\n{"))
	f.Add([]byte("客户,权重\n甲,0.5\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "seeds")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if bytes.HasPrefix(data, []byte("PAR1")) {
			return // a process each: TestParquetDamaged
		}
		seeds, err := ReadSeeds(context.Background(), path, Options{})
		for _, s := range seeds {
			if err == nil && (s.ID == "" || len(s.ID) > maxIDBytes || !(s.Weight >= 0) || math.IsInf(s.Weight, 0)) {
				t.Fatalf("%+v", s)
			}
		}
	})
}

// FuzzFile reads whole files as a caller does: compressed, in any encoding.
func FuzzFile(f *testing.F) {
	f.Add([]byte(sampleCSV), false)
	f.Add([]byte("\xff\xfea\x00,\x00b\x00\n\x001\x00,\x002\x00"), true)
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	if _, err := w.Write([]byte(sampleCSV)); err != nil {
		f.Fatal(err)
	}
	if err := w.Close(); err != nil {
		f.Fatal(err)
	}
	f.Add(z.Bytes(), false)
	f.Add(zstdBytes(f, []byte(sampleCSV)), true)
	f.Fuzz(func(t *testing.T, data []byte, group bool) {
		if bytes.HasPrefix(data, []byte("PAR1")) {
			return
		}
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		opt := Options{MaxLine: 1 << 16, MaxGroupBytes: 1 << 20}
		p, err := Inspect(context.Background(), path, opt)
		if err != nil {
			return
		}
		if err := p.Schema().Validate(); err != nil {
			t.Fatalf("the plan's schema: %v\n%s", err, p)
		}
		if group && len(p.Columns) > 0 {
			opt.GroupBy = p.Columns[0].Name
			if p, err = Inspect(context.Background(), path, opt); err != nil {
				return
			}
		}
		r, err := p.Open(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for n := 0; ; n++ {
			rec, err := r.Next()
			var bad *RowError
			if err != nil && !errors.As(err, &bad) {
				return
			}
			if err == nil && (rec.ID == "" || len(rec.ID) > maxIDBytes) {
				t.Fatalf("record %d has id %q", n, rec.ID)
			}
			if n > 1<<20 {
				t.Fatal("no end")
			}
		}
	})
}

func zstdBytes(t testing.TB, data []byte) []byte {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	return w.EncodeAll(data, nil)
}

// Compressed files read as plain ones; a cut or hostile one says so.
func TestCompression(t *testing.T) {
	_, want, _ := readAll(t, write(t, "a.csv", []byte(sampleCSV)), Options{})
	z := zstdBytes(t, []byte(sampleCSV))
	p, got, bad := readAll(t, write(t, "a.csv.zst", z), Options{})
	if p.Compression != "zstd" || len(bad) > 0 || !reflect.DeepEqual(got, want) {
		t.Errorf("zstd: %q, %v\n%v", p.Compression, bad, got)
	}
	for name, data := range map[string][]byte{
		"half":   z[:len(z)/2],
		"window": {0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xf8, 0x01, 0x00, 0x00}, // asks for 2 TiB
	} {
		_, err := Inspect(context.Background(), write(t, name+".zst", data), Options{})
		if err == nil || !strings.Contains(err.Error(), "zstd") || !strings.Contains(err.Error(), name+".zst") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
