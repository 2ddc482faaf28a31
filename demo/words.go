package demo

// segment is one planted group: where its columns centre and what it writes
// about. Shares are relative. age, spend, visits and tenure are the centres of
// wide distributions that overlap with the neighbours'.
type segment struct {
	name                       string
	share                      float64
	age, spend, visits, tenure float64
	male                       float64 // probability of gender m
	region, plan, channel      string  // what it leans to; "" for no habit
	interests                  []string
	english, chinese           []string
}

var (
	regions  = []string{"north", "south", "east", "west", "centre", "coast", "islands"}
	plans    = []string{"free", "basic", "plus", "family", "premium"}
	channels = []string{"web", "app", "store", "phone", "partner"}
)

var segments = []segment{
	{
		name: "young-parents", share: 1.1, age: 34, spend: 120, visits: 12, tenure: 24, male: 0.42, plan: "family", channel: "app",
		interests: []string{"baby", "toys", "school", "picnic", "books"},
		english: []string{
			"the baby carrier fits well and our toddler falls asleep in it", "we need nappies in a larger size before the weekend",
			"the car seat was easy to install and my daughter loves the colour", "our son starts kindergarten and needs a small backpack",
			"the night light finally helps the little one to sleep through", "do you have the high chair that folds away",
		},
		chinese: []string{"宝宝背带很合身，孩子一会儿就睡着了", "周末之前想换大一号的纸尿裤", "儿童安全座椅很好装，女儿喜欢这个颜色", "儿子要上幼儿园了，需要一个小书包", "小夜灯让孩子终于能睡整觉", "请问可以折叠的餐椅还有货吗"},
	},
	{
		name: "runners", share: 0.9, age: 33, spend: 95, visits: 14, tenure: 20, male: 0.55, channel: "app", region: "coast",
		interests: []string{"running", "fitness", "nutrition", "hiking", "music"},
		english: []string{
			"these shoes survived my second marathon without a blister", "I run ten kilometres every morning and the watch loses no signal",
			"the energy gels are easy on the stomach on long runs", "training for a half marathon and looking for a lighter jacket",
			"my pace improved since I track my heart rate", "the foam roller is a relief after interval training",
		},
		chinese: []string{"这双鞋陪我跑完第二个马拉松也没起泡", "每天早上跑十公里，手表信号一直很稳", "长跑的时候这款能量胶不伤胃", "正在备战半马，想找一件更轻的外套", "开始看心率以后配速提高了", "间歇训练以后用泡沫轴很舒服"},
	},
	{
		name: "gardeners", share: 1, age: 58, spend: 70, visits: 6, tenure: 60, male: 0.4, region: "south", channel: "store",
		interests: []string{"garden", "cooking", "birds", "crafts", "books"},
		english: []string{
			"the tomato seedlings arrived healthy and are already in the greenhouse", "which compost do you recommend for roses on heavy clay",
			"the pruning shears stay sharp all season", "half of the tulip bulbs came up, the mice took the others",
			"our vegetable patch never looked better since the drip hose", "I am looking for a hedge that birds like to nest in",
		},
		chinese: []string{"番茄苗到的时候很健康，已经种进大棚了", "黏土地种月季用哪种堆肥好", "这把修枝剪用了一季还很锋利", "郁金香只出了一半，其余被老鼠吃了", "装了滴灌以后菜园长得特别好", "想种一排鸟儿愿意筑巢的绿篱"},
	},
	{
		name: "gamers", share: 1.1, age: 24, spend: 60, visits: 20, tenure: 14, male: 0.68, plan: "basic", channel: "web",
		interests: []string{"games", "computers", "anime", "streaming", "music"},
		english: []string{
			"the graphics card runs the new shooter at full resolution", "my headset crackles during ranked matches",
			"the mechanical keyboard is loud but the switches feel great", "when will the limited console be back in stock",
			"I stream three evenings a week and the microphone is clear", "frame rate dropped after the last driver update",
		},
		chinese: []string{"这块显卡玩新射击游戏全高画质没问题", "打排位的时候耳机有杂音", "机械键盘声音大，但是轴的手感很好", "限量版主机什么时候补货", "我每周直播三个晚上，麦克风很清楚", "更新驱动以后帧率掉了"},
	},
	{
		name: "travellers", share: 0.9, age: 41, spend: 180, visits: 7, tenure: 36, male: 0.5, plan: "premium", region: "centre",
		interests: []string{"travel", "photography", "languages", "food", "hiking"},
		english: []string{
			"the cabin suitcase passed every airline's check this year", "I need a plug adapter for Japan before Friday",
			"the travel pillow made a twelve hour flight bearable", "we are off to Portugal for a month and want luggage insurance",
			"the backpack has a hidden pocket for the passport", "is the camera bag allowed as hand luggage",
		},
		chinese: []string{"这个登机箱今年过了所有航空公司的检查", "周五之前需要一个去日本用的转换插头", "有了旅行枕，十二个小时的飞机也不难熬", "我们要去葡萄牙住一个月，想买行李保险", "背包里有放护照的暗袋", "相机包可以当手提行李吗"},
	},
	{
		name: "bargain-hunters", share: 1.3, age: 45, spend: 35, visits: 18, tenure: 30, male: 0.45, plan: "free", channel: "web",
		interests: []string{"coupons", "outlet", "cooking", "crafts", "streaming"},
		english: []string{
			"I found it cheaper elsewhere, do you match the price", "the coupon code does not work on reduced goods",
			"a good buy at half price, I would not pay the full one", "please tell me when the clearance sale starts",
			"I ordered three because of the discount on the third", "why is there no student rebate any more",
		},
		chinese: []string{"别家更便宜，可以保价吗", "优惠券在打折商品上用不了", "半价很划算，原价就不会买", "清仓什么时候开始请通知我", "因为第三件打折所以买了三件", "为什么学生优惠没有了"},
	},
	{
		name: "audiophiles", share: 0.6, age: 49, spend: 240, visits: 5, tenure: 50, male: 0.66, plan: "premium", channel: "store",
		interests: []string{"music", "vinyl", "concerts", "computers", "photography"},
		english: []string{
			"the turntable brings out details on old jazz records", "these speakers need a large room to breathe",
			"the amplifier hums when the tuner is connected", "I compared both headphones and the open ones have the wider stage",
			"my vinyl collection finally has a proper shelf", "do you carry cables for balanced connections",
		},
		chinese: []string{"这台唱机能放出老爵士唱片的细节", "这对音箱要在大房间里才放得开", "接上调谐器功放就有嗡声", "两副耳机对比过，开放式的声场更宽", "我的黑胶收藏终于有了合适的架子", "你们有平衡接口的线材吗"},
	},
	{
		name: "home-cooks", share: 1, age: 47, spend: 85, visits: 9, tenure: 40, male: 0.38, plan: "plus", channel: "web",
		interests: []string{"cooking", "food", "garden", "wine", "books"},
		english: []string{
			"the cast iron pan gives a perfect crust on bread", "my sourdough rises well in the proofing basket",
			"the knife needs sharpening after a week of chopping", "which pot works on induction and in the oven",
			"the pasta machine rolls thin sheets without tearing", "I cook for six every Sunday and the casserole is just large enough",
		},
		chinese: []string{"铸铁锅烤面包外壳特别脆", "我的酸面团在发酵篮里发得很好", "菜刀切了一周就要磨了", "哪种锅电磁炉和烤箱都能用", "压面机压得很薄也不破", "每周日给六个人做饭，这口炖锅刚好够大"},
	},
	{
		name: "small-business", share: 0.7, age: 44, spend: 320, visits: 16, tenure: 44, male: 0.56, plan: "plus", channel: "phone",
		interests: []string{"office", "computers", "coffee", "travel", "languages"},
		english: []string{
			"I need an invoice with our tax number for the last order", "we ordered forty chairs for the new office and two were damaged",
			"the label printer saves our shop an hour a day", "can we pay by bank transfer within thirty days",
			"our accountant asks for the statement of the quarter", "the card reader stopped working in the middle of the market day",
		},
		chinese: []string{"上一单需要开带税号的发票", "新办公室订了四十把椅子，有两把坏了", "标签打印机每天给店里省一个小时", "可以三十天内银行转账付款吗", "会计要这个季度的对账单", "赶集那天刷卡机突然坏了"},
	},
	{
		name: "pet-owners", share: 1, age: 39, spend: 75, visits: 10, tenure: 32, male: 0.43, region: "west", channel: "app",
		interests: []string{"dogs", "cats", "hiking", "garden", "toys"},
		english: []string{
			"our dog refuses the new food but loves the treats", "the scratching post is stable and the cat uses it every day",
			"the leash is comfortable on long walks in the forest", "does the flea collar work for puppies",
			"the cat litter does not smell, even after three days", "my old retriever needs a softer bed for his joints",
		},
		chinese: []string{"狗狗不吃新狗粮，但是很喜欢零食", "猫抓柱很稳，猫每天都用", "牵引绳在林子里走久了也舒服", "驱虫项圈幼犬能用吗", "猫砂三天都没有味道", "家里的老金毛需要一个更软的窝护关节"},
	},
}

// wording is what all segments share in one language.
type wording struct {
	openers          map[string][]string
	generic, closers []string
	stop, space      string
}

var english = wording{
	openers: map[string][]string{
		"review": {"", "Bought this last month: ", "Second order here, ", "Honest opinion: ", "After some weeks of use, "},
		"chat":   {"Hello, ", "Hi there, quick question: ", "Good evening, ", "Sorry to bother again, ", ""},
		"note":   {"Customer says: ", "Called on Monday: ", "Follow-up, ", "From the survey: "},
	},
	generic: []string{
		"the parcel arrived two days late and the box was open", "delivery was quick and the driver friendly", "the website logs me out all the time",
		"the quality is fine for the money", "I would like to change my address", "the colour differs a little from the picture",
		"the refund has not arrived yet", "the staff were patient and helpful", "the size runs small, I had to send it back", "everything as described",
	},
	closers: []string{"Thank you.", "Would buy again.", "Please get back to me.", "Four stars from me.", "My neighbour recommended it.", "Not sure I would order once more."},
	stop:    ".", space: " ",
}

var chinese = wording{
	openers: map[string][]string{
		"review": {"", "上个月买的，", "第二次购买，", "说实话，", "用了几周，"},
		"chat":   {"你好，", "请问一下，", "晚上好，", "不好意思又来打扰，", ""},
		"note":   {"客户反馈：", "周一来电：", "回访，", "问卷里写：", ""},
	},
	generic: []string{
		"快递晚到了两天，箱子还开了", "送货很快，快递员态度好", "网站总是自动退出登录", "这个价钱质量还可以", "我想修改收货地址",
		"颜色和图片有点差别", "退款还没有到账", "客服很有耐心", "尺码偏小，只好退了", "和描述的一样",
	},
	closers: []string{"谢谢。", "下次还会买。", "请尽快回复。", "给四星。", "邻居推荐的。", "不一定会再买了。"},
	stop:    "。", space: "",
}
