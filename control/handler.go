// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// Limits of what a client may send, and of how long it may keep a line unread.
const (
	maxHeader    = 16 << 10 // bytes
	maxBody      = 64 << 10 // bytes
	maxName      = 64       // bytes of a service, verb or volume
	readTimeout  = 10 * time.Second
	writeTimeout = 10 * time.Second
	idleTimeout  = time.Minute
)

// NewHandler serves the API. who says who sent a request.
func NewHandler(backend Backend, events *Events, who func(*http.Request) string) http.Handler {
	return newHandler(backend, events, who, nil)
}

func newHandler(backend Backend, events *Events, who func(*http.Request) string, here *attendance) http.Handler {
	h := &handler{backend: backend, events: events, who: who, here: here}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/status", h.status)
	mux.HandleFunc("GET /api/v1/events", h.listEvents)
	mux.HandleFunc("POST /api/v1/{service}/{verb}", h.act)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, http.StatusNotFound, &Refusal{Message: fmt.Sprintf("there is no %s %s", r.Method, r.URL.Path)})
	})
	return mux
}

type handler struct {
	backend Backend
	events  *Events
	who     func(*http.Request) string
	here    *attendance
}

func (h *handler) status(w http.ResponseWriter, _ *http.Request) {
	lines := newLines(w, "application/json")
	lines.send(h.backend.Status())
}

func (h *handler) listEvents(w http.ResponseWriter, r *http.Request) {
	after, err := strconv.ParseUint(orZero(r.FormValue("since")), 10, 64)
	if err != nil {
		refuse(w, http.StatusBadRequest, &Refusal{Message: "since is no sequence number"})
		return
	}
	follow, err := strconv.ParseBool(orZero(r.FormValue("follow")))
	if err != nil {
		refuse(w, http.StatusBadRequest, &Refusal{Message: "follow is neither true nor false"})
		return
	}
	if follow {
		end, err := h.here.begin(r.Context())
		if err != nil {
			refuse(w, http.StatusServiceUnavailable, err)
			return
		}
		defer end()
	}
	lines := newLines(w, "application/x-ndjson")
	events := h.events.Since(after)
	for err == nil {
		for _, event := range events {
			lines.send(event)
			after = event.Sequence
		}
		lines.flush()
		if !follow || lines.err != nil {
			return
		}
		events, err = h.events.Next(r.Context(), after)
	}
}

func (h *handler) act(w http.ResponseWriter, r *http.Request) {
	action, err := h.readAction(w, r)
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	end, err := h.here.begin(r.Context())
	if err != nil {
		refuse(w, http.StatusServiceUnavailable, err)
		return
	}
	defer end()
	lines := newLines(w, "application/x-ndjson")
	err = h.backend.Act(r.Context(), action, func(p Progress) {
		lines.send(Line{Progress: &p})
		lines.flush()
	})
	lines.send(Line{Result: resultOf(err)})
}

func (h *handler) readAction(w http.ResponseWriter, r *http.Request) (Action, error) {
	var body request
	if err := readBody(w, r, &body); err != nil {
		return Action{}, err
	}
	action := Action{
		Verb:    r.PathValue("verb"),
		Service: r.PathValue("service"),
		Volume:  body.Volume,
		Args:    body.Args,
		Who:     h.who(r),
	}
	if len(action.Verb) > maxName || len(action.Service) > maxName || len(action.Volume) > maxName {
		return Action{}, &Refusal{Message: fmt.Sprintf("a name is longer than %d bytes", maxName)}
	}
	if action.Service == NodeWide {
		action.Service = ""
	}
	return action, nil
}

// readBody reads one JSON value. The server has no time limit for whole
// requests, because it would also end the long answers; so this one has.
func readBody(w http.ResponseWriter, r *http.Request, value any) error {
	control := http.NewResponseController(w)
	control.SetReadDeadline(time.Now().Add(readTimeout)) // no harm where a writer has none
	defer control.SetReadDeadline(time.Time{})
	// To its end: only then does the server notice that a client goes away.
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return &Refusal{Message: fmt.Sprintf("the request is larger than %d bytes", maxBody)}
	}
	if err != nil {
		return &Refusal{Message: fmt.Sprintf("the request did not arrive: %v", err)}
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields() // an argument that is not understood must not be ignored
	if err := decoder.Decode(value); err != nil {
		return &Refusal{Message: fmt.Sprintf("the request is not understood: %v", err)}
	}
	if decoder.More() {
		return &Refusal{Message: "the request is more than one value"}
	}
	return nil
}

// refuse answers with a Line, as an action would.
func refuse(w http.ResponseWriter, code int, err error) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(code)
	newLines(w, "").send(Line{Result: resultOf(err)})
}

func orZero(text string) string {
	if text == "" {
		return "0"
	}
	return text
}

// lines writes JSON, a value per line. After an error it writes nothing more.
type lines struct {
	control *http.ResponseController
	encoder *json.Encoder
	err     error
}

func newLines(w http.ResponseWriter, kind string) *lines {
	if kind != "" {
		w.Header().Set("Content-Type", kind)
	}
	return &lines{control: http.NewResponseController(w), encoder: json.NewEncoder(w)}
}

func (l *lines) send(value any) {
	if l.err != nil {
		return
	}
	// Not every writer has deadlines (a test's has none); a server's has.
	if err := l.control.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		l.err = err
		return
	}
	l.err = l.encoder.Encode(value)
}

func (l *lines) flush() {
	if l.err == nil {
		l.err = l.control.Flush()
	}
}
