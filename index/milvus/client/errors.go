package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/milvus-io/milvus-proto/go-api/v2/commonpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kindred-search/kindred/index"
)

// Kinds of failure, for errors.Is.
var (
	ErrUnreachable    = errors.New("Milvus cannot be reached")
	ErrTimeout        = errors.New("Milvus did not answer in time")
	ErrRateLimited    = errors.New("Milvus limits the rate")
	ErrAuth           = errors.New("Milvus refused the credentials")
	ErrNotMilvus      = errors.New("what answers is not Milvus")
	ErrVersion        = errors.New("this version of Milvus is not supported")
	ErrSchema         = errors.New("the collection has another schema")
	ErrNotLoaded      = errors.New("the collection is not loaded")
	ErrNotReady       = errors.New("Milvus is starting")
	ErrGone           = errors.New("Milvus does not have it")
	ErrExists         = errors.New("Milvus already has it")
	ErrDiskFull       = errors.New("the disk of Milvus is full")
	ErrMemory         = errors.New("the memory of Milvus is full")
	ErrTooLarge       = errors.New("the message is too large for Milvus")
	ErrInvalidRequest = errors.New("Milvus cannot do this as asked")
	ErrInvalidAnswer  = errors.New("the answer of Milvus is not valid")
	ErrServer         = errors.New("Milvus failed")
)

// kinds has for each kind the word used in metrics, and how to mend it.
var kinds = map[error]struct{ word, mend string }{
	ErrUnreachable:    {"unreachable", "check that Milvus runs, that address and port are right, whether it wants TLS, and that no firewall lies between; calls go through again by themselves once it is back"},
	ErrTimeout:        {"timeout", "look at the load of Milvus; raise the timeout if it is only slow"},
	ErrRateLimited:    {"rate_limited", "write more slowly, or raise the limits of quotaAndLimits in milvus.yaml"},
	ErrAuth:           {"auth", "check user and password (or API key), and that the user may do this"},
	ErrNotMilvus:      {"not_milvus", "check the port: Milvus speaks gRPC on 19530 by default, and plain HTTP on others; check also whether it wants TLS"},
	ErrVersion:        {"version", "use Milvus 2.3 to 2.6"},
	ErrSchema:         {"schema", "the collection was made by someone else or by another version; choose another name or prefix, or drop it"},
	ErrNotLoaded:      {"not_loaded", "load the collection, or wait until Milvus has loaded it"},
	ErrNotReady:       {"not_ready", "wait until Milvus has started"},
	ErrGone:           {"gone", "it was dropped, or the name or database is another; create it again or correct the name"},
	ErrExists:         {"exists", "choose another name, or drop what is there"},
	ErrDiskFull:       {"disk_full", "give Milvus more disk, or drop what is not needed; nothing is lost, writes are refused until then"},
	ErrMemory:         {"memory", "give Milvus more memory, release collections, or use an index that needs less"},
	ErrTooLarge:       {"too_large", "send or ask for fewer rows at once"},
	ErrInvalidRequest: {"invalid_request", ""},
	ErrInvalidAnswer:  {"invalid_answer", "the server, or something between, is broken: nothing of the answer was used; check the version of Milvus and its log"},
	ErrServer:         {"server", "look into the log of Milvus"},
	context.Canceled:  {"cancelled", ""},
}

// Error is a failed call. It matches its Kind and, where there is one, the error of
// package index that means the same, by errors.Is.
type Error struct {
	Kind   error // one of the Err values above, or context.Canceled
	Op     string
	Where  string // address, and the collection after a slash
	Detail string // of the server or the transport, shortened, without secrets
	Code   int32  // of Milvus, 0 where there is none
	// RetryAfter is when a new try may help; 0 where that is not known.
	RetryAfter time.Duration
	// Sent says whether the request may have reached the server: a write that
	// failed with it may have happened.
	Sent bool

	retry bool // whether the same request may succeed soon
}

// Error says what, where and how to mend it.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "milvus %s: %s: %v", e.Where, e.Op, e.Kind)
	if e.Detail != "" {
		fmt.Fprintf(&b, ": %s", e.Detail)
	}
	if mend := kinds[e.Kind].mend; mend != "" {
		fmt.Fprintf(&b, " (%s)", mend)
	}
	return b.String()
}

// Unwrap gives the kind and its counterpart in package index.
func (e *Error) Unwrap() []error {
	out := []error{e.Kind}
	switch {
	case e.is(ErrGone):
		out = append(out, index.ErrNotFound)
	case e.is(ErrExists):
		out = append(out, index.ErrExists)
	case e.is(ErrDiskFull):
		out = append(out, index.ErrNoSpace)
	case e.is(ErrInvalidRequest, ErrTooLarge, ErrSchema):
		out = append(out, index.ErrInvalid)
	case e.is(ErrTimeout):
		out = append(out, context.DeadlineExceeded, index.ErrUnavailable)
	case e.is(ErrUnreachable, ErrRateLimited, ErrNotReady, ErrNotLoaded):
		out = append(out, index.ErrUnavailable)
	}
	return out
}

// is says whether the kind is one of these.
func (e *Error) is(kinds ...error) bool {
	return slices.ContainsFunc(kinds, func(k error) bool { return errors.Is(e.Kind, k) })
}

// Outcome is the word for an error in metrics: "ok" for nil.
func Outcome(err error) string {
	if err == nil {
		return "ok"
	}
	var e *Error
	if errors.As(err, &e) {
		if w := kinds[e.Kind].word; w != "" {
			return w
		}
	}
	return "other"
}

// Unavailable says whether the call failed because the server is away, starting or
// overloaded, so that the same call may succeed later.
func Unavailable(err error) bool {
	return errors.Is(err, ErrUnreachable) || errors.Is(err, ErrTimeout) || errors.Is(err, ErrRateLimited) ||
		errors.Is(err, ErrNotReady) || errors.Is(err, ErrNotLoaded)
}

// maxDetail bounds what a server can put into our errors and logs.
const maxDetail = 400

func shorten(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < 32 || r == 127 {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	s = strings.TrimSpace(s)
	if len(s) > maxDetail {
		s = strings.ToValidUTF8(s[:maxDetail], "") + " ..."
	}
	return s
}

// ofTransport makes an Error of what gRPC returned.
func ofTransport(err error) *Error {
	st, _ := status.FromError(err)
	msg := st.Message()
	e := &Error{Kind: ErrServer, Detail: msg, Sent: true}
	lower := strings.ToLower(msg)
	switch st.Code() {
	case codes.DeadlineExceeded:
		e.Kind = ErrTimeout
		// gRPC says so when the line itself never came about: nothing was sent.
		if strings.Contains(lower, "waiting for connections") || strings.Contains(lower, "last connection error") {
			e.Kind, e.Sent = ErrUnreachable, false
		}
	case codes.Canceled:
		e.Kind = context.Canceled
	case codes.Unauthenticated, codes.PermissionDenied:
		e.Kind = ErrAuth
	case codes.Unimplemented:
		e.Kind = ErrNotMilvus
		if strings.Contains(lower, "unknown method") || strings.Contains(lower, "unimplemented") || strings.Contains(lower, "not implemented") {
			e.Kind = ErrVersion
		}
		if strings.Contains(lower, "http status") {
			e.Kind = ErrNotMilvus
		}
	case codes.ResourceExhausted:
		e.Kind, e.retry = ErrRateLimited, true
		if strings.Contains(lower, "larger than max") {
			e.Kind, e.retry = ErrTooLarge, false
		}
	case codes.Unavailable:
		e.Kind, e.retry = ErrUnreachable, true
		switch {
		case speaksOther(lower):
			e.Kind, e.retry, e.Sent = ErrNotMilvus, false, false
		case strings.Contains(lower, "x509") || strings.Contains(lower, "tls:"):
			e.Kind, e.retry, e.Sent = ErrNotMilvus, false, false
		case strings.Contains(lower, "while dialing") || strings.Contains(lower, "refused"):
			e.Sent = false
		}
	case codes.Internal, codes.Unknown:
		switch {
		case strings.Contains(lower, "unmarshal") || strings.Contains(lower, "decompress") || strings.Contains(lower, "malformed") || strings.Contains(lower, "unexpected eof"):
			e.Kind = ErrInvalidAnswer
		case strings.Contains(lower, "content-type") || strings.Contains(lower, "http status"):
			e.Kind = ErrNotMilvus
		case strings.Contains(lower, "auth") || strings.Contains(lower, "permission"):
			e.Kind = ErrAuth
		case strings.Contains(lower, "rst_stream") || strings.Contains(lower, "stream terminated"):
			e.Kind, e.retry = ErrUnreachable, true
		}
	case codes.NotFound:
		e.Kind = ErrGone
	case codes.InvalidArgument, codes.OutOfRange, codes.FailedPrecondition:
		e.Kind = ErrInvalidRequest
	case codes.DataLoss:
		e.Kind = ErrInvalidAnswer
	}
	return e
}

// speaksOther recognises what gRPC says about a peer that does not speak HTTP/2.
func speaksOther(lower string) bool {
	if strings.Contains(lower, "preface: eof") || strings.Contains(lower, "connection reset") || strings.Contains(lower, "use of closed") {
		return false // it hung up, as a server that stops does
	}
	for _, s := range []string{"server preface", "frame too large", "malformed http", "http/1", "http status code", "first record does not look like a tls", "frame size", "unexpected http"} {
		if strings.Contains(lower, s) {
			return true
		}
	}
	return false
}

// ofStatus makes an Error of a status that Milvus sent; nil where it says success.
// Servers from 2.3 on fill Code; ErrorCode is the older, coarser field.
func ofStatus(s *commonpb.Status) *Error {
	if s == nil {
		return &Error{Kind: ErrInvalidAnswer, Detail: "the answer has no status", Sent: true}
	}
	if s.GetCode() == 0 && s.GetErrorCode() == commonpb.ErrorCode_Success { //nolint:staticcheck // the field that servers of 2.2 and 2.3 fill
		return nil
	}
	e := &Error{Kind: ErrServer, Detail: s.GetReason(), Code: s.GetCode(), Sent: true}
	lower := strings.ToLower(s.GetReason())
	switch c := s.GetCode(); {
	case c == 1, c == 2:
		e.Kind, e.retry = ErrNotReady, true
	case c == 3:
		e.Kind = ErrMemory
	case c == 7:
		e.Kind = ErrDiskFull
	case c == 4, c == 8:
		e.Kind, e.retry = ErrRateLimited, true
	case c == 9:
		e.Kind, e.retry = ErrRateLimited, false
	case c == 10:
		e.Kind = ErrVersion
	case c == 100, c == 200, c == 700, c == 800, c == 1600:
		e.Kind = ErrGone
	case c == 101, c == 103, c == 201, c == 202:
		e.Kind, e.retry = ErrNotLoaded, true
	case c == 503, c == 400, c == 401, c == 502 && strings.Contains(lower, "channel"), c >= 901 && c <= 905:
		e.Kind, e.retry = ErrNotReady, true
	case c == 1602:
		e.Kind = ErrExists
	case c >= 1100 && c < 1200, c >= 1700 && c < 1800, c == 701, c == 1601:
		e.Kind = ErrInvalidRequest
	case c >= 1400 && c < 1500, c == 1800:
		e.Kind = ErrAuth
	default:
		ofOldCode(e, s.GetErrorCode(), lower) //nolint:staticcheck // see above
	}
	// One coarse code stands for many things; the words tell them apart.
	switch {
	case e.is(ErrServer) && (strings.Contains(lower, "not loaded") || strings.Contains(lower, "not fully loaded")):
		e.Kind, e.retry = ErrNotLoaded, true
	case e.is(ErrServer) && strings.Contains(lower, "no space left"), strings.Contains(lower, "disk quota"):
		e.Kind, e.retry = ErrDiskFull, false
	case e.is(ErrRateLimited) && strings.Contains(lower, "memory"):
		e.Kind, e.retry = ErrMemory, false
	case e.is(ErrServer) && (strings.Contains(lower, "can't find collection") || strings.Contains(lower, "collection not found") || strings.Contains(lower, "not exist")):
		e.Kind = ErrGone
	case e.is(ErrServer) && (strings.Contains(lower, "already exist") || strings.Contains(lower, "duplicate")):
		e.Kind = ErrExists
	case e.is(ErrServer) && (strings.Contains(lower, "cannot parse expression") || strings.Contains(lower, "invalid") || strings.Contains(lower, "failed to create query plan")):
		e.Kind = ErrInvalidRequest
	case e.is(ErrServer) && (strings.Contains(lower, "no available") || strings.Contains(lower, "channel not available") || strings.Contains(lower, "node offline")):
		e.Kind, e.retry = ErrNotReady, true
	case e.is(ErrServer) && (strings.Contains(lower, "unauthenticated") || strings.Contains(lower, "permission deny") || strings.Contains(lower, "auth check failure")):
		e.Kind = ErrAuth
	}
	if e.retry && e.is(ErrRateLimited) {
		e.RetryAfter = time.Second
	}
	return e
}

func ofOldCode(e *Error, c commonpb.ErrorCode, lower string) { //nolint:staticcheck // the field that servers of 2.2 and 2.3 fill
	switch c {
	case commonpb.ErrorCode_NotReadyServe, commonpb.ErrorCode_NoReplicaAvailable, commonpb.ErrorCode_NodeIDNotMatch:
		e.Kind, e.retry = ErrNotReady, true
	case commonpb.ErrorCode_CollectionNotExists, commonpb.ErrorCode_IndexNotExist, commonpb.ErrorCode_CollectionNameNotFound:
		e.Kind = ErrGone
	case commonpb.ErrorCode_IllegalArgument, commonpb.ErrorCode_IllegalDimension, commonpb.ErrorCode_IllegalCollectionName,
		commonpb.ErrorCode_IllegalTOPK, commonpb.ErrorCode_IllegalRowRecord:
		e.Kind = ErrInvalidRequest
	case commonpb.ErrorCode_PermissionDenied:
		e.Kind = ErrAuth
	case commonpb.ErrorCode_InsufficientMemoryToLoad, commonpb.ErrorCode_OutOfMemory, commonpb.ErrorCode_MemoryQuotaExhausted:
		e.Kind = ErrMemory
	case commonpb.ErrorCode_DiskQuotaExhausted:
		e.Kind = ErrDiskFull
	case commonpb.ErrorCode_RateLimit:
		e.Kind, e.retry = ErrRateLimited, true
	case commonpb.ErrorCode_ForceDeny, commonpb.ErrorCode_TimeTickLongDelay:
		e.Kind = ErrRateLimited
	case commonpb.ErrorCode_MetaFailed:
		if strings.Contains(lower, "not found") || strings.Contains(lower, "can't find") {
			e.Kind = ErrGone
		}
	}
}
