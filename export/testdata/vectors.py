"""Writes vectors.json: what others make of contact data.

meta: facebook-business (Meta's own SDK), normalisation and hash of each field.
phone: phonenumbers, the Python port of Google's library.
google: the rules of Google's Data Manager guide, "Format user data", whose own
examples are the first two e-mail addresses.

    pip install facebook-business phonenumbers && python vectors.py
"""
import hashlib, json, phonenumbers
from facebook_business.adobjects.serverside.normalize import Normalize

contacts = [
    dict(email=" John.Smith@Example.COM ", phone="+1 (650) 555-1212", first="Mary", last="O Neil", city="New York", state="CA", zip="94035-1234", country="US"),
    dict(email="user.name+NYC@Example.com", phone="+44 20 7946 0958", first="  Jörg ", last="Müller", city="St. Gallen", state="sg", zip="M1 1AE", country="gb"),
    dict(email="li@例子.cn", phone="+86 138 0013 8000", first="李", last="王", city="北京", state="北京", zip="100000", country="CN"),
    dict(email="b@c.de", phone="+39 06 698 12345", first="Ann Marie", last="d", city="Rio de Janeiro", state="rj", zip=" 20040-020", country="br"),
]
fields = dict(email="em", phone="ph", first="fn", last="ln", city="ct", state="st", zip="zp", country="country")
meta = [{k: Normalize.normalize(f, c[k], True) for k, f in fields.items()} for c in contacts]
calls = [("030 901820", "DE"), ("(800)555-0100", "US"), ("06 698 12345", "IT"), ("138 0013 8000", "CN"), ("020 7946 0958", "GB"), ("+33 1 42 68 53 00", "US"), ("00 49 30 901820", "FR")]
phone = [dict(raw=r, region=g, e164=phonenumbers.format_number(phonenumbers.parse(r, g), phonenumbers.PhoneNumberFormat.E164)) for r, g in calls]
sha = lambda s: hashlib.sha256(s.encode()).hexdigest()
google = [dict(raw=r, hash=sha(n)) for r, n in [
    ("cloudy.sanfrancisco+shopping@gmail.com", "cloudysanfrancisco@gmail.com"),
    ("user.name+NYC@Example.com", "user.name+nyc@example.com"),
    (" A.B.C @GoogleMail.com", "abc@googlemail.com"),
]]
json.dump(dict(contacts=contacts, meta=meta, phone=phone, google=google), open("vectors.json", "w"), ensure_ascii=False, indent=1)
