package phrases

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Words that say nothing of a subject. They may be within a phrase ("waste of
// money"), not at its ends.
var (
	fillersEN = set(`a an the this that these those it its he she they them their his her him i me my mine we us our
		you your yours who whom whose which what when where why how and or but if then than so as of at by for with
		about into onto to from in on out off over under up down again once here there all any both each few more
		most other some such only own same s t just also am is are was were be been being have has had having do
		does did doing would could should will shall can may might must i'm i've i'd i'll it'd it'll you're you've
		he's she's we're we've they're they've that's there's what's let's got get gets getting one ones thing
		things much many lot lots bit even still yet ever now because while until before after during between
		through though although however since upon per via etc really quite rather pretty amp rt u ur im ive
		go going went come came say said says make made makes`)
	openersEN = set(`not no never without cannot can't don't doesn't didn't won't wouldn't isn't aren't wasn't
		weren't hasn't haven't hadn't couldn't shouldn't too very less least hardly barely`)
	fillersZH = set(`的 了 是 在 我 我们 你 你们 您 他 她 它 他们 她们 自己 也 都 就 和 与 及 或 而 但 但是 不过 可是 这 那 这个 那个
		这样 那样 这么 那么 这种 那种 这里 那里 这些 那些 什么 怎么 为什么 哪 个 一个 一 一下 一些 一样 一直 一点 有 有些 还 还是 还有 又 再 才
		只 只是 只有 把 被 给 对 对于 从 到 向 跟 让 用 以 以及 因为 所以 如果 虽然 然后 而且 并 并且 且 于是 之 之后 以后 以前 时 时候
		地 得 着 过 吧 吗 呢 啊 呀 哦 嗯 哈 哈哈 呵呵 嘛 啦 哎 唉 会 能 可以 可能 应该 要 想 觉得 感觉 知道 说 看 看到 来 去 做 买
		上 下 里 中 后 前 次 点 多 几 每 各 本 该 其 此 等 等等 其他 其实 已经 现在 今天 昨天 第一 第一次 两 三 起来 出来 下来 东西 真的 真
		于 由 所 者 即 则 却 仅 另 另外 同 为 为了 就是 便 连 某 是否 或者 甚至 不是 没什么 人 家 事 完 完全`)
	openersZH = set(`不 没 没有 无 未 别 不能 不会 不要 不够 很 太 非常 不太 比较 有点 有点儿 挺 特别 十分 最 更 超 超级 相当 极 极其 够 不怎么`)
)

func set(words string) map[string]bool {
	out := map[string]bool{}
	for w := range strings.FieldsSeq(words) {
		out[w] = true
	}
	return out
}

func spacedRole(w string) role {
	switch {
	case fillersEN[w] || utf8.RuneCountInString(w) < 2:
		return filler
	case openersEN[w]:
		return opener
	case !strings.ContainsFunc(w, unicode.IsLetter):
		return filler
	}
	return content
}

func hanRole(w string) role {
	switch {
	case fillersZH[w]:
		return filler
	case openersZH[w]:
		return opener
	case utf8.RuneCountInString(w) < 2:
		return partner
	}
	return content
}
