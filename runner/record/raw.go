package record

import (
	"encoding/base64"
	"encoding/json"
	"unicode/utf8"
)

// Raw is a string of any bytes. JSON knows only UTF-8 and would replace others, which an environment may well hold; such a
// one is written as {"base64":"..."}.
type Raw string

type rawBytes struct {
	Base64 string `json:"base64"`
}

// MarshalJSON implements json.Marshaler.
func (r Raw) MarshalJSON() ([]byte, error) {
	if utf8.ValidString(string(r)) {
		return json.Marshal(string(r))
	}
	return json.Marshal(rawBytes{base64.StdEncoding.EncodeToString([]byte(r))})
}

// UnmarshalJSON implements json.Unmarshaler.
func (r *Raw) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '{' {
		var b rawBytes
		if err := json.Unmarshal(data, &b); err != nil {
			return err
		}
		s, err := base64.StdEncoding.DecodeString(b.Base64)
		*r = Raw(s)
		return err
	}
	var s string
	err := json.Unmarshal(data, &s)
	*r = Raw(s)
	return err
}
