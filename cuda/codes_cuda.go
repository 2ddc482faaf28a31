//go:build cuda

package cuda

// The driver's numbers of errors that are told apart here (cuda.h, CUresult).
const (
	codeInvalidValue  = 1
	codeOutOfMemory   = 2
	codeBusy          = 46 // another process has it for itself
	codeNoDevice      = 100
	codeInvalidDevice = 101
	codeInvalidImage  = 200
	codeNoBinary      = 209
	codeUnsupported   = 222 // PTX of a later toolchain
	codeNotFound      = 500
	codeResources     = 701
	codeSystem        = 802
	codeUnknown       = 999
)

// kindOf sorts the driver's errors. Those that leave a context unusable are lost;
// an unknown one is taken for such too.
func kindOf(code int) error {
	switch code {
	case codeOutOfMemory:
		return ErrOutOfMemory
	case codeBusy:
		return ErrBusy
	case codeNoDevice, codeInvalidDevice, codeSystem:
		return ErrNoDevice
	case codeInvalidImage, codeNoBinary, codeUnsupported, codeNotFound:
		return ErrImage
	case codeInvalidValue, codeResources:
		return ErrLaunch
	}
	return ErrLost
}
